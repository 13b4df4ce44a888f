{{ config(materialized='incremental', unique_key='reading_id', on_schema_change='append_new_columns') }}

select distinct
    reading_id,
    sensor_id,
    cast(measured_at as timestamp(6)) as measured_at,
    cast(arrived_at as timestamp(6)) as arrived_at,
    case when value > -9999 then cast(value as double) end as value
from {{ ref('raw_readings') }}
{% if is_incremental() %}
where cast(arrived_at as timestamp(6)) > (select max(arrived_at) from {{ this }})
{% endif %}
