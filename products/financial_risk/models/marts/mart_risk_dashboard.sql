with exposure as (
    select
        book,
        count(*) as position_count,
        {{ money('sum(gross_exposure)') }} as gross_exposure,
        {{ money("sum(case when rating in ('BB', 'B', 'NR') then gross_exposure else 0 end)") }} as weak_exposure
    from {{ ref('int_exposure') }}
    group by book
),

risk as (
    select
        book,
        {{ money('sum(market_value)') }} as market_value,
        sum(value_at_risk_99) as value_at_risk_99
    from {{ ref('int_portfolio_risk') }}
    group by book
)

select
    exposure.book,
    exposure.position_count,
    exposure.gross_exposure,
    exposure.weak_exposure,
    risk.market_value,
    risk.value_at_risk_99,
    cast(exposure.weak_exposure as double) / nullif(cast(exposure.gross_exposure as double), 0) as weak_share
from exposure
inner join risk on exposure.book = risk.book
