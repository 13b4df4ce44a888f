"""Models with a deprecation date: who reads one that goes, or is gone, learns of it while there is time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import asset_name
from floe_dagster.policies.places import DescriptionPlaces


def check_deprecations(
    dbt_manifest: Mapping[str, Any],
    path_prefix: str,
    read_text: Callable[[str], str | None],
    today: date | None = None,
) -> list[Finding]:
    """Return a finding for each model of the project that has a deprecation date, or reads a model that has one.

    A date that has passed is a warning, one that comes is an information.

    Args:
        dbt_manifest: dbt's.
        path_prefix: Folder of the product, for display.
        read_text: Returns the text of a file by its path below the product's folder, None where it cannot be read.
        today: In UTC; the present day when left out.
    """
    today = today or datetime.now(UTC).date()
    places = DescriptionPlaces(read_text)
    project = dbt_manifest["metadata"]["project_name"]
    nodes = dbt_manifest["nodes"]
    dates = {key: found for key, node in nodes.items() if (found := deprecation_date(node)) is not None}
    findings = []
    for key, node in nodes.items():
        if node["package_name"] != project:
            continue
        name = asset_name(node)
        if key in dates:
            readers = sorted(
                asset_name(reader)
                for reader in nodes.values()
                if reader["resource_type"] in ("model", "snapshot") and key in reader["depends_on"]["nodes"]
            )
            read = f"; {', '.join(readers)} {'reads' if len(readers) == 1 else 'read'} it" if readers else ""
            place = places.of(node) or (node["original_file_path"], 1)
            findings.append(
                _finding(
                    dates[key],
                    today,
                    message=f"model {name!r} {_said(dates[key], today)}{read}",
                    file=_join(path_prefix, place[0]),
                    line=place[1],
                    field="deprecation_date",
                    model=name,
                    fix="Let its readers take another version, then remove it; or choose a later date.",
                )
            )
        elif node["resource_type"] in ("model", "snapshot"):
            # Of the project's own models the finding above names the readers.
            foreign = [up for up in node["depends_on"]["nodes"] if up in dates]
            findings += [
                _finding(
                    dates[up],
                    today,
                    message=f"{name!r} reads {asset_name(nodes[up])!r} of {nodes[up]['package_name']}, which "
                    f"{_said(dates[up], today)}",
                    file=_join(path_prefix, node["original_file_path"]),
                    line=1,
                    model=name,
                    fix="Read another version, or another model.",
                )
                for up in foreign
                if nodes[up]["package_name"] != project
            ]
    return findings


def next_deprecation(dbt_manifest: Mapping[str, Any], today: date | None = None) -> date | None:
    """Return the next day on which a model's deprecation date passes; None where none is to come.

    What was found of a project holds until then.

    Args:
        dbt_manifest: dbt's.
        today: In UTC; the present day when left out.
    """
    today = today or datetime.now(UTC).date()
    dates = (deprecation_date(node) for node in dbt_manifest["nodes"].values())
    return min((found for found in dates if found is not None and found > today), default=None)


def deprecation_date(node: Mapping[str, Any]) -> date | None:
    """Return the day from which a model is deprecated; None where nobody says one."""
    stated = node.get("deprecation_date")
    try:
        return datetime.fromisoformat(str(stated)).date() if stated else None
    except ValueError:
        return None


def _said(deprecated: date, today: date) -> str:
    return (
        f"is deprecated since {deprecated}" if deprecated <= today else f"will be deprecated on {deprecated}"
    )


def _finding(deprecated: date, today: date, **fields: Any) -> Finding:
    return Finding(
        code="deprecated-model",
        severity="warning" if deprecated <= today else "info",
        found=str(deprecated),
        **fields,
    )


def _join(prefix: str, path: str) -> str:
    return f"{prefix}/{path}" if prefix else path
