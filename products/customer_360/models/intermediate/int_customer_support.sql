select
    customers.customer_id,
    count(tickets.ticket_id) as ticket_count,
    -- Engines give a sum other types; Iceberg cannot change the one that is published.
    cast(
        sum(case when tickets.ticket_id is not null and tickets.closed_at is null then 1 else 0 end) as decimal(38, 0)
    ) as open_ticket_count,
    avg(cast(tickets.satisfaction as double)) as average_satisfaction
from {{ ref('stg_crm_customers') }} as customers
left join {{ ref('stg_support_tickets') }} as tickets
    on customers.customer_id = tickets.customer_id
group by customers.customer_id
