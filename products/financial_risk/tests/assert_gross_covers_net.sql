-- The net value of a book never exceeds its gross exposure.
select book
from {{ ref('mart_risk_dashboard') }}
where abs(market_value) > gross_exposure
