with anomalies as (
    select equipment_id, count(*) as anomaly_count
    from {{ ref('int_anomalies') }}
    group by equipment_id
),

readings as (
    select
        equipment_id,
        count(*) as sensor_count,
        cast(sum(reading_count) as bigint) as reading_count,
        max(last_measured_at) as last_measured_at
    from {{ ref('int_sensor_metrics') }}
    group by equipment_id
)

select
    readings.equipment_id,
    readings.sensor_count,
    readings.reading_count,
    readings.last_measured_at,
    coalesce(anomalies.anomaly_count, 0) as anomaly_count,
    case
        when coalesce(anomalies.anomaly_count, 0) >= 6 then 'critical'
        when coalesce(anomalies.anomaly_count, 0) >= 3 then 'watch'
        else 'healthy'
    end as health
from readings
left join anomalies on readings.equipment_id = anomalies.equipment_id
