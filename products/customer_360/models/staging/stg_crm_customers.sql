with latest as (
    {{ latest_by(ref('raw_crm_customers'), 'customer_id', 'updated_at desc') }}
)

select
    customer_id,
    {{ clean_text('full_name') }} as full_name,
    {{ clean_email('email') }} as email,
    upper({{ clean_text('country') }}) as country,
    coalesce({{ clean_text('segment') }}, 'unknown') as segment,
    cast(signed_up_on as date) as signed_up_on,
    cast(updated_at as timestamp(6)) as updated_at
from latest
