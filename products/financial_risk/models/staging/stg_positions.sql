select distinct
    position_id,
    counterparty_id,
    upper({{ clean_text('symbol') }}) as symbol,
    cast(quantity as bigint) as quantity,
    lower({{ clean_text('book') }}) as book,
    cast(booked_on as date) as booked_on
from {{ ref('raw_positions') }}
