select
    customers.customer_id,
    count(transactions.transaction_id) as order_count,
    {{ money("coalesce(sum(transactions.amount), 0)") }} as lifetime_value,
    min(transactions.occurred_at) as first_order_at,
    max(transactions.occurred_at) as last_order_at
from {{ ref('stg_crm_customers') }} as customers
left join {{ ref('stg_transactions') }} as transactions
    on customers.customer_id = transactions.customer_id
    and transactions.status = 'completed'
group by customers.customer_id
