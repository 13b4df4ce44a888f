select distinct
    transaction_id,
    customer_id,
    {{ money('amount') }} as amount,
    upper({{ clean_text('currency') }}) as currency,
    lower({{ clean_text('status') }}) as status,
    cast(occurred_at as timestamp(6)) as occurred_at
from {{ ref('raw_transactions') }}
where transaction_id is not null
