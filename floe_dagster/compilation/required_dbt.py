"""`require-dbt-version` of a project and of its packages.

dbt looks at it where it also asks on the network for newer versions of itself, which it does nowhere here.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

from floe_dagster.compilation.documents import Document
from floe_dagster.findings import Finding

KEYS = ("require-dbt-version", "require_dbt_version")
_PART = re.compile(r"^\s*(>=|<=|>|<|=)?\s*v?(\d+)\.(\d+)\.(\d+)\S*\s*$")
_SIDES: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


def check_required_dbt(document: Document) -> list[Finding]:
    """Return an error where a project does not take the dbt that is installed, or says it in a way that dbt does not know.

    Args:
        document: A `dbt_project.yml`.
    """
    data = document.data if isinstance(document.data, dict) else {}
    key = next((key for key in KEYS if data.get(key) is not None), None)
    if key is None:
        return []
    parts = data[key] if isinstance(data[key], list) else str(data[key]).split(",")
    if any("{{" in str(part) for part in parts):
        return []
    installed = metadata.version("dbt-core")
    bounds = [_PART.match(str(part)) for part in parts]
    if all(bounds) and all(_holds(bound, installed) for bound in bounds if bound is not None):
        return []
    line, column = document.position((key,), key=True)
    return [
        Finding(
            code="dbt-version",
            severity="error",
            message=f"the project asks for another dbt than the {installed} that is installed"
            if all(bounds)
            else f"{key} is no range of versions",
            file=document.display,
            line=line,
            column=column,
            field=key,
            found=", ".join(str(part) for part in parts),
            allowed=f'a range that holds {installed}, such as [">=1.10.0", "<2.0.0"]',
            fix=f"Correct {key}, or install a dbt-core that it takes.",
        )
    ]


def _holds(bound: re.Match[str], installed: str) -> bool:
    """Tell whether a version lies on the right side of a bound; what comes after its third number counts for nothing."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", installed)[:3])
    return _SIDES[bound[1] or "="](numbers, tuple(int(number) for number in bound.groups()[1:]))
