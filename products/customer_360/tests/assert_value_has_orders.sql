-- Nobody has a lifetime value without an order.
select customer_id
from {{ ref('mart_customer_360') }}
where lifetime_value > 0 and order_count = 0
