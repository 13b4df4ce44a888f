with known as (
    select
        orders.customer_id,
        orders.order_count,
        orders.lifetime_value,
        orders.last_order_at,
        support.ticket_count,
        cast(support.open_ticket_count as integer) as open_ticket_count,
        support.average_satisfaction
    from {{ ref('int_customer_orders') }} as orders
    inner join {{ ref('int_customer_support') }} as support
        on orders.customer_id = support.customer_id
)

select
    *,
    case
        when lifetime_value >= 2000 then 'high'
        when lifetime_value >= 500 then 'medium'
        when order_count > 0 then 'low'
        else 'none'
    end as value_band,
    case
        when open_ticket_count >= 2 or average_satisfaction < 2.5 then true
        else false
    end as is_at_risk
from known
