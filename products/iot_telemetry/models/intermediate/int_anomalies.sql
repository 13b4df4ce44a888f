select
    readings.reading_id,
    readings.sensor_id,
    metrics.equipment_id,
    readings.measured_at,
    readings.value,
    (readings.value - metrics.mean_value) / nullif(metrics.deviation, 0) as z_score
from {{ ref('stg_readings') }} as readings
inner join {{ ref('int_sensor_metrics') }} as metrics
    on readings.sensor_id = metrics.sensor_id
where abs(readings.value - metrics.mean_value) > 3 * metrics.deviation
