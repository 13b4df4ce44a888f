select
    work_order_id,
    {{ clean_text('equipment_id') }} as equipment_id,
    lower({{ clean_text('kind') }}) as kind,
    cast(done_at as timestamp(6)) as done_at,
    {{ money('cost') }} as cost
from {{ ref('raw_maintenance') }}
