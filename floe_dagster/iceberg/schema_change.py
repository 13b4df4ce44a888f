"""Schema evolution of published tables: what Iceberg allows, and what governance accepts of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from floe_dagster.iceberg.errors import PublicationError

if TYPE_CHECKING:
    from pyiceberg.schema import Schema
    from pyiceberg.table import Transaction


def evolve_schema(
    transaction: Transaction,
    wanted: Schema,
    full_name: str,
    *,
    policy: str = "allow",
    keep_columns: bool = False,
) -> list[str]:
    """Bring the table's schema to the wanted one, in the transaction that writes the rows.

    Args:
        transaction: Of the table.
        wanted: Schema of what is published.
        full_name: For messages.
        policy: `governance.schema_evolution`: allow, additive (new columns only) or refuse.
        keep_columns: A column that is missing in `wanted` stays, because rows that have it stay.

    Returns:
        What changed, for people.

    Raises:
        PublicationError: Iceberg cannot change a type like this, or the policy refuses.
    """
    from pyiceberg.exceptions import ValidationError

    now = {column.name: column for column in transaction.table_metadata.schema().fields}
    then = {column.name: column for column in wanted.fields}
    changes = check_evolution(
        transaction.table_metadata.schema(), wanted, full_name, policy=policy, keep_columns=keep_columns
    )
    dropped = [] if keep_columns else [name for name in now if name not in then]
    nested = any(str(now[n].field_type) != str(c.field_type) for n, c in then.items() if n in now)
    if not changes and not nested:
        return []
    try:
        with transaction.update_schema(allow_incompatible_changes=True) as update:
            for name in dropped:
                update.delete_column((name,))
        with transaction.update_schema() as update:
            update.union_by_name(wanted)
    except (ValidationError, ValueError) as error:
        raise PublicationError(
            f"{full_name} cannot change its schema like this: {error}. Publish under another name, or keep the type."
        ) from error
    return changes


def check_evolution(
    current: Schema, wanted: Schema, full_name: str, *, policy: str = "allow", keep_columns: bool = False
) -> list[str]:
    """Return what differs between two schemas, for people; columns are known by their names.

    Args:
        current: Schema of the table.
        wanted: Schema of what is published.
        full_name: For messages.
        policy: `governance.schema_evolution`: allow, additive (new columns only) or refuse.
        keep_columns: A column that is missing in `wanted` stays, because rows that have it stay.

    Raises:
        PublicationError: Iceberg cannot change a type like this, or the policy refuses.
    """
    from pyiceberg.schema import promote
    from pyiceberg.types import DecimalType, PrimitiveType

    now = {column.name: column for column in current.fields}
    then = {column.name: column for column in wanted.fields}
    changes: list[str] = []
    for name, column in then.items():
        if name not in now:
            changes.append(f"added {name} {column.field_type}")
            continue
        old, new = now[name].field_type, column.field_type
        if str(old) == str(new) or not (isinstance(old, PrimitiveType) and isinstance(new, PrimitiveType)):
            if isinstance(old, PrimitiveType) != isinstance(new, PrimitiveType):
                raise _refused(full_name, name, old, new)
            continue
        if isinstance(old, DecimalType) and isinstance(new, DecimalType) and old.scale != new.scale:
            raise _refused(full_name, name, old, new)
        try:
            promote(old, new)
        except Exception:
            raise _refused(full_name, name, old, new) from None
        changes.append(f"widened {name} from {old} to {new}")
    if not keep_columns:
        changes += [f"dropped {name}" for name in now if name not in then]
    _check_policy(policy, changes, full_name)
    return changes


def _refused(full_name: str, column: str, old: Any, new: Any) -> PublicationError:
    return PublicationError(
        f"{full_name}: column {column!r} is {old} in the table and {new} now, which Iceberg cannot change. Cast it "
        f"to {old}, give the column another name, or drop the table to start over; its last snapshot stands."
    )


def _check_policy(policy: str, changes: list[str], full_name: str) -> None:
    if policy == "additive":
        refused = [change for change in changes if not change.startswith("added ")]
        allowed = "only new columns"
    else:
        refused, allowed = (changes if policy == "refuse" else []), "no change"
    if refused:
        raise PublicationError(
            f"{full_name} changes its schema: {', '.join(refused)}. governance.schema_evolution is {policy!r}, which "
            f"allows {allowed}; the last snapshot stands. Publish under another name, or have the rule changed."
        )
