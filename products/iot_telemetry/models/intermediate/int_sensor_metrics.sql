select
    sensors.sensor_id,
    sensors.equipment_id,
    sensors.kind,
    count(readings.value) as reading_count,
    avg(readings.value) as mean_value,
    stddev_samp(readings.value) as deviation,
    max(readings.measured_at) as last_measured_at
from {{ ref('stg_sensors') }} as sensors
left join {{ ref('stg_readings') }} as readings
    on sensors.sensor_id = readings.sensor_id
group by sensors.sensor_id, sensors.equipment_id, sensors.kind
