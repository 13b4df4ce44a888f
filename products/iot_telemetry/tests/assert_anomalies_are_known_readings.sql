-- Every anomaly is one of the readings.
select anomalies.reading_id
from {{ ref('int_anomalies') }} as anomalies
left join {{ ref('stg_readings') }} as readings on anomalies.reading_id = readings.reading_id
where readings.reading_id is null
