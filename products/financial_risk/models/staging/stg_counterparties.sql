select
    counterparty_id,
    {{ clean_text('name') }} as name,
    coalesce(upper({{ clean_text('rating') }}), 'NR') as rating,
    upper({{ clean_text('country') }}) as country,
    {{ clean_text('iban') }} as iban
from {{ ref('raw_counterparties') }}
