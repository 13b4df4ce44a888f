{#- Small cleaning steps that every product uses; standard SQL, so they hold on every engine. -#}

{#- Without the character engines disagree about tabs and line ends. -#}
{% macro clean_text(column) -%}
nullif(trim(both ' ' from {{ column }}), '')
{%- endmacro %}

{% macro clean_email(column) -%}
lower({{ clean_text(column) }})
{%- endmacro %}

{% macro money(expression) -%}
cast({{ expression }} as decimal(18, 2))
{%- endmacro %}

{% macro latest_by(relation, key, ordered_by) -%}
select *
from (
    select
        *,
        row_number() over (partition by {{ key }} order by {{ ordered_by }}) as row_position
    from {{ relation }}
) as numbered
where row_position = 1
{%- endmacro %}
