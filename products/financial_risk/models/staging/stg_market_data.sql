select
    upper({{ clean_text('symbol') }}) as symbol,
    cast(quoted_on as date) as quoted_on,
    cast(price as decimal(18, 4)) as price,
    upper({{ clean_text('currency') }}) as currency
from {{ ref('raw_market_data') }}
