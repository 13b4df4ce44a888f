with returns as (
    select
        symbol,
        cast(price as double) / nullif(
            lag(cast(price as double)) over (partition by symbol order by quoted_on), 0
        ) - 1 as daily_return
    from {{ ref('stg_market_data') }}
    where price is not null
),

volatility as (
    select symbol, stddev_samp(daily_return) as daily_volatility
    from returns
    group by symbol
)

select
    exposure.book,
    exposure.symbol,
    {{ money('sum(exposure.market_value)') }} as market_value,
    max(volatility.daily_volatility) as daily_volatility,
    abs(sum(cast(exposure.market_value as double))) * max(volatility.daily_volatility) * 2.326 as value_at_risk_99
from {{ ref('int_exposure') }} as exposure
inner join volatility on exposure.symbol = volatility.symbol
group by exposure.book, exposure.symbol
