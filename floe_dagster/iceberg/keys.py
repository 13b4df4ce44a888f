"""The key of an upsert, which has to tell the rows of a relation apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.iceberg.types import quoted


def check_key(
    key: Sequence[str], names: Sequence[str], full_name: str, any_row: Callable[[str], bool]
) -> None:
    """Refuse a key that does not tell the rows of a relation apart.

    Args:
        key: Columns that shall identify a row.
        names: Columns of the relation.
        full_name: Of the table, for the message.
        any_row: Tells whether the relation has a row, given what follows `select 1 from` the relation.

    Raises:
        PublicationError: A column does not exist, is null, or the key is not unique.
    """
    unknown = [name for name in key if name not in names]
    if unknown or not key:
        raise PublicationError(
            f"{full_name}: transforms[].table.key names {', '.join(map(repr, unknown)) or 'nothing'}; the model has: "
            f"{', '.join(names)}"
        )
    keys = ", ".join(quoted(name) for name in key)
    if any_row(f"where {' or '.join(f'{quoted(name)} is null' for name in key)}"):
        raise PublicationError(
            f"{full_name}: a column of the key ({', '.join(key)}) is null; upsert needs a value"
        )
    if any_row(f"group by {keys} having count(*) > 1"):
        raise PublicationError(
            f"{full_name}: the key ({', '.join(key)}) is not unique: at least two rows have the same one; upsert cannot "
            "tell which one is meant. Add the `unique` test, or another column to the key"
        )
