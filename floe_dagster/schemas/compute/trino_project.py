"""What a dbt project needs besides its own files so that its tables can be published from Trino.

The project that is compiled gets two settings and a few macros; the files that people edit stay as they are. Macros of
dbt's adapters can be overridden by the root project only, so it cannot be a package.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from floe_dagster.schemas.compute.engine import ProjectOverlay
from floe_dagster.schemas.table_layout import PartitionField, SortField

_MACROS = """\
{#- A clone shares its files with a published table: DROP would remove those, too. -#}
{%- macro floe_is_clone(relation) -%}
  {%- if not execute -%}{{ return(false) }}{%- endif -%}
  {%- set properties = adapter.quote(relation.identifier ~ '$properties') -%}
  {%- set found = run_query(
      "select 1 from " ~ relation.include(identifier=false) ~ "." ~ properties ~ " where key = 'floe.clone-of'"
  ) -%}
  {{ return((found | length) > 0) }}
{%- endmacro -%}

{%- macro trino__get_drop_sql(relation) -%}
  {%- if relation.type == 'table' and floe_is_clone(relation) -%}
    call {{ adapter.quote(relation.database) }}.system.unregister_table(
      schema_name => '{{ relation.schema }}', table_name => '{{ relation.identifier }}'
    )
  {%- else -%}
    drop {{ relation.type | replace('_', ' ') }} if exists {{ relation }}
  {%- endif -%}
{%- endmacro -%}

{#- Two underscores, which no product's name has: `sales` with the schema `emea` is not the product `sales_emea`. -#}
{%- macro trino__generate_schema_name(custom_schema_name, node) -%}
  {{ target.schema }}{% if custom_schema_name is not none %}__{{ custom_schema_name | trim | lower }}{% endif %}
{%- endmacro -%}

{#- With a key and no strategy rows take the place of those with the same key, as on DuckDB; dbt-trino would add them. -#}
{%- macro trino__get_incremental_default_sql(arg_dict) -%}
  {%- if arg_dict['unique_key'] -%}
    {{ return(get_incremental_merge_sql(arg_dict)) }}
  {%- endif -%}
  {{ return(get_incremental_append_sql(arg_dict)) }}
{%- endmacro -%}

{%- macro floe_table_layouts() -%}
  {{ return(__LAYOUTS__) }}
{%- endmacro -%}

{#- `CREATE OR REPLACE` forgets partitions and sort order that it does not name. -#}
{%- macro properties(temporary=False) -%}
  {%- set layouts = floe_table_layouts() -%}
  {#- A version has the layout of its own transform, else that of all versions of its model. -#}
  {%- set own = model.alias if model.get('version') is not none and model.alias in layouts else model.name -%}
  {%- set layout = {} if temporary else layouts.get(own, {}) -%}
  {%- if layout -%}
    {%- set named = dict(config.get('properties') or {}) -%}
    {%- if config.get('file_format') -%}
      {%- do named.update({'format': "'" ~ config.get('file_format') ~ "'"}) -%}
    {%- endif -%}
    {%- do named.update(layout) -%}
    with (
      {%- for name, value in named.items() -%}
        {{ name }} = {{ value }}{%- if not loop.last -%}, {% endif -%}
      {%- endfor -%}
    )
  {%- else -%}
    {{ dbt.properties(temporary) }}
  {%- endif -%}
{%- endmacro -%}
"""


def project_overlay(layouts: Mapping[str, Mapping[str, Sequence[str]]]) -> ProjectOverlay:
    """Return settings and macros for one product.

    Args:
        layouts: `partition_by` and `sort_by` of `transforms[].table`, by the name of a model or of one
            version of it; an empty one where a transform states nothing.
    """
    tables = {model: table_properties(**layout) for model, layout in layouts.items()}
    listed = json.dumps(tables, sort_keys=True)
    return ProjectOverlay(
        # dbt-trino's other ways drop the table that was there: a clone must not be dropped.
        configs={kind: {"+on_table_exists": "replace"} for kind in ("models", "seeds")},
        macros=_MACROS.replace("__LAYOUTS__", listed),
        reserved=frozenset(
            {"drop_relation", "trino__drop_relation", "get_drop_sql", "get_incremental_default_sql"}
        ),
    )


def table_properties(
    partition_by: Sequence[str] | None = None, sort_by: Sequence[str] | None = None
) -> dict[str, str]:
    """Return Trino's table properties for a layout, as they stand in SQL.

    Raises:
        ValueError: A field cannot be read.
    """
    found = {}
    if partition_by:
        found["partitioning"] = _array(_partition(PartitionField.parse(text)) for text in partition_by)
    if sort_by:
        found["sorted_by"] = _array(_sort(SortField.parse(text)) for text in sort_by)
    return found


def _partition(field: PartitionField) -> str:
    column = _quoted(field.column)
    if field.transform == "identity":
        return column
    return f"{field.transform}({column}, {field.width})" if field.width else f"{field.transform}({column})"


def _sort(field: SortField) -> str:
    direction = "DESC" if field.descending else "ASC"
    return f"{_quoted(field.column)} {direction} NULLS {'FIRST' if field.nulls_first else 'LAST'}"


def _quoted(column: str) -> str:
    # Trino knows columns in lower case alone.
    return '"' + column.lower().replace('"', '""') + '"'


def _array(items: Iterable[str]) -> str:
    values = ("'" + item.replace("'", "''") + "'" for item in items)
    return f"ARRAY[{', '.join(values)}]"
