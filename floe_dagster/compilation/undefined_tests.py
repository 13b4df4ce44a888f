"""Generic tests that no macro defines: dbt parses them, and says so only when it builds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from floe_dagster.compilation.dbt_messages import line_of_word
from floe_dagster.compilation.suggestions import did_you_mean
from floe_dagster.findings import Finding

PREFIX = "test_"
"""Of the macro that a generic test is."""


def check_generic_tests(
    manifest: Mapping[str, Any], shown: str, read_source: Callable[[str], str | None]
) -> list[Finding]:
    """Return an error for each generic test whose macro is nowhere in the project and its packages.

    Args:
        manifest: dbt's.
        shown: Display path of the product's folder.
        read_source: Returns the text of a file by its path in the project; None where it cannot be read.
    """
    macros = {macro["name"] for macro in manifest["macros"].values()}
    known = [name.removeprefix(PREFIX) for name in macros if name.startswith(PREFIX)]
    findings: dict[tuple[str, str], Finding] = {}
    for node in manifest["nodes"].values():
        asked = node.get("test_metadata") if node["resource_type"] == "test" else None
        if not asked or f"{PREFIX}{asked['name']}" in macros:
            continue
        name, file = str(asked["name"]), str(node["original_file_path"])
        findings[(name, file)] = Finding(
            code="unknown-test",
            severity="error",
            message=f"no macro defines the generic test {name!r}",
            file=f"{shown}/{file}",
            line=line_of_word(read_source(file) or "", name) or 1,
            found=repr(name),
            fix=did_you_mean(name, known)
            or "Correct its name, or bring the package that defines it (packages.yml).",
        )
    return list(findings.values())
