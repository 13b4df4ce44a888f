select
    ticket_id,
    customer_id,
    lower({{ clean_text('priority') }}) as priority,
    cast(opened_at as timestamp(6)) as opened_at,
    cast(closed_at as timestamp(6)) as closed_at,
    cast(satisfaction as integer) as satisfaction
from {{ ref('raw_support_tickets') }}
