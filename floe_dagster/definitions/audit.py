"""Which models may be published, read from dbt's own results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

BUILT = frozenset({"success", "pass"})
TEST_FAILED = frozenset({"fail", "error", "runtime error"})


@dataclass(slots=True)
class Audit:
    """The outcome of one `dbt build`.

    Args:
        clean: Ids of assets that were built and whose error tests passed, as did all upstream.
        withheld: Why an asset is not clean, by id.
        tests: dbt's result by id of the test.
        built: dbt's result by id of each asset that was built.
        results: dbt's result of every node, by its id.
    """

    clean: set[str] = field(default_factory=set)
    withheld: dict[str, str] = field(default_factory=dict)
    tests: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    built: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)


def audit(
    index: Mapping[str, Any],
    results: Mapping[str, Any] | None,
    wanted: set[str],
    explain: Callable[[str], str],
) -> Audit:
    """Judge every wanted asset.

    Args:
        index: The asset index, its assets in any order.
        results: dbt's `run_results.json`; None where dbt wrote none.
        wanted: Ids of the assets that dbt was asked to build.
        explain: Makes one line of what dbt says of a node that failed.
    """
    outcome = Audit()
    checks = {check["id"]: check for check in index["checks"]}
    by_id = {result["unique_id"]: result for result in (results or {}).get("results", ())}
    outcome.results = by_id
    outcome.tests = {key: result for key, result in by_id.items() if key in checks}
    names = {asset["id"]: asset["name"] for asset in index["assets"]}

    for key in wanted:
        result = by_id.get(key)
        if result is None:
            outcome.withheld[key] = "dbt did not run it"
        elif result["status"] not in BUILT:
            message = explain(str(result.get("message") or ""))
            outcome.withheld[key] = f"dbt: {result['status']}" + (f": {message}" if message else "")
        else:
            outcome.built[key] = result
    for key, result in outcome.tests.items():
        if result["status"] in TEST_FAILED:
            for read in checks[key]["reads"]:
                outcome.withheld.setdefault(read, f"test {checks[key]['name']} failed")
    changed = True
    while changed:
        changed = False
        for asset in index["assets"]:
            if asset["id"] in outcome.withheld:
                continue
            for upstream in asset["deps"]:
                if upstream in outcome.withheld:
                    outcome.withheld[asset["id"]] = f"it reads {names[upstream]}, which was withheld"
                    changed = True
                    break
    outcome.clean = {key for key in outcome.built if key not in outcome.withheld}
    return outcome


def in_order(index: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the assets so that each comes after those it reads."""
    from graphlib import TopologicalSorter

    assets = {asset["id"]: asset for asset in index["assets"]}
    order = TopologicalSorter({key: asset["deps"] for key, asset in assets.items()}).static_order()
    return [assets[key] for key in order]
