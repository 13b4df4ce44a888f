with latest_prices as (
    {{ latest_by('(select * from ' ~ ref('stg_market_data') ~ ' where price is not null) as quoted', 'symbol', 'quoted_on desc') }}
)

select
    positions.position_id,
    positions.counterparty_id,
    counterparties.rating,
    positions.book,
    positions.symbol,
    positions.quantity,
    latest_prices.price,
    {{ money('positions.quantity * latest_prices.price') }} as market_value,
    {{ money('abs(positions.quantity * latest_prices.price)') }} as gross_exposure
from {{ ref('stg_positions') }} as positions
inner join {{ ref('stg_counterparties') }} as counterparties
    on positions.counterparty_id = counterparties.counterparty_id
inner join latest_prices
    on positions.symbol = latest_prices.symbol
