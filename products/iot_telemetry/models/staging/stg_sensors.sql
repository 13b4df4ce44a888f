select
    sensor_id,
    {{ clean_text('equipment_id') }} as equipment_id,
    lower({{ clean_text('kind') }}) as kind,
    {{ clean_text('location') }} as location
from {{ ref('raw_sensors') }}
