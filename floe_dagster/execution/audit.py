"""Which models may be published, read from dbt's own results."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from floe_dagster.schemas.product_index import Asset, Check, ProductIndex

_PART = re.compile(r'"((?:[^"]|"")*)"(\.|$)')
BUILT = frozenset({"success", "pass"})
TEST_FAILED = frozenset({"fail", "error", "runtime error"})
TESTED = TEST_FAILED | {"pass", "warn"}
"""Statuses of a test that was executed."""
SKIPPED = "skipped"
_HOOK = "operation."
"""Begins the unique id of a hook: `on-run-start` and `on-run-end` run with whatever is selected."""


@dataclass(slots=True)
class Audit:
    """The outcome of one `dbt build`.

    Args:
        clean: Ids of assets that were built and whose error tests passed, as did all upstream.
        withheld: Why an asset is not clean, by id.
        tests: dbt's result by id of the test.
        built: dbt's result by id of each asset that was built.
        results: dbt's result of every node, by its id.
        unplanned: Ids of what dbt executed and was not asked for.
        hooks: What dbt said of each hook that failed, by id.
    """

    clean: set[str] = field(default_factory=set)
    withheld: dict[str, str] = field(default_factory=dict)
    tests: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    built: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    unplanned: list[str] = field(default_factory=list)
    hooks: dict[str, str] = field(default_factory=dict)

    def withhold(self, reasons: Mapping[str, str], assets: Mapping[str, Asset]) -> None:
        """Withhold further assets, and what reads them.

        Args:
            reasons: By unique id.
            assets: Of the index by unique id.
        """
        for key, reason in reasons.items():
            self.withheld.setdefault(key, reason)
        _withhold_readers(self, assets)
        self.clean -= self.withheld.keys()


def audit(
    index: ProductIndex,
    results: Mapping[str, Any] | None,
    planned: Collection[str],
    explain: Callable[[str], str],
    *,
    needed: Collection[str] = (),
    before: Collection[str] = (),
) -> Audit:
    """Judge every asset that dbt was asked to build.

    Args:
        index: Its checks and its assets in any order.
        results: dbt's `run_results.json`; None where dbt wrote none.
        planned: Ids of all that dbt was asked to execute.
        explain: Makes one line of what dbt says of a node that failed.
        needed: Ids of the tests whose result a table waits for: where an error test has none, what it withholds is
            withheld.
        before: Ids of assets that the same run has built already. What no part of it has built, stands as it is.
    """
    outcome = Audit()
    checks = index.checks_by_id()
    assets = index.assets_by_id()
    by_id = {result["unique_id"]: result for result in (results or {}).get("results", ())}
    wanted = assets.keys() & set(planned)
    outcome.results = by_id
    outcome.tests = {key: result for key, result in by_id.items() if key in checks}
    outcome.unplanned = sorted(
        key
        for key, result in by_id.items()
        if key not in planned and not key.startswith(_HOOK) and result["status"] != SKIPPED
    )

    outcome.hooks = {
        key: explain(str(result.get("message") or "")) or str(result["status"])
        for key, result in by_id.items()
        if key.startswith(_HOOK) and result["status"] in TEST_FAILED
    }
    skipped = set()
    for key in wanted:
        result = by_id.get(key)
        if result is None:
            outcome.withheld[key] = "dbt did not run it"
        elif result["status"] == SKIPPED:
            skipped.add(key)
        elif result["status"] not in BUILT:
            message = explain(str(result.get("message") or ""))
            outcome.withheld[key] = f"dbt: {result['status']}" + (f": {message}" if message else "")
        elif elsewhere := _built_elsewhere(assets[key], result):
            outcome.withheld[key] = elsewhere
        else:
            outcome.built[key] = result
    for key, result in outcome.tests.items():
        if problem := _problem(checks[key], result):
            for judged in checks[key].withholds:
                if judged in wanted or judged in before:
                    outcome.withheld.setdefault(judged, problem)
    _withhold_readers(outcome, assets)
    # Causes first: a test that dbt skipped says less than why it did.
    for key in needed:
        check = checks[key]
        if not check.is_error or _has_result(by_id.get(key)):
            continue
        for judged in check.withholds:
            if judged in wanted:
                outcome.withheld.setdefault(judged, _without_result(check, by_id.get(key)))
    _withhold_readers(outcome, assets)
    for key in skipped:
        outcome.withheld.setdefault(key, "dbt skipped it")
    _withhold_readers(outcome, assets)
    outcome.clean = {key for key in outcome.built if key not in outcome.withheld}
    return outcome


def _problem(check: Check, result: Mapping[str, Any]) -> str | None:
    """Return why what a test withholds is withheld, by its result; None where it passed, or may warn."""
    name = f"{_kind(check)} {check.name}"
    if result["status"] in TEST_FAILED:
        return f"{name} failed"
    if result["status"] == "warn" and check.is_error and not check.may_warn:
        return f"{name} failed: it was compiled as an error test and only warned in this run"
    return None


def _without_result(check: Check, result: Mapping[str, Any] | None) -> str:
    why = "dbt skipped it" if result else "dbt did not run it, though it was compiled"
    return f"{_kind(check)} {check.name} has no result: {why}"


def _built_elsewhere(asset: Asset, result: Mapping[str, Any]) -> str | None:
    """Return why an asset is withheld that dbt built under another name than was compiled; None where it did not.

    The relation of the compiled name would be published, which nobody has tested.
    """
    named = [part.replace('""', '"') for part, _ in _PART.findall(str(result.get("relation_name") or ""))]
    compiled = asset.relation
    if len(named) != 3 or [p.lower() for p in named[1:]] == [p.lower() for p in compiled[1:]]:
        return None
    return f"dbt built {'.'.join(named[1:])}, though {'.'.join(compiled[1:])} was compiled"


def _kind(check: Check) -> str:
    return "unit test" if check.is_unit_test else "test"


def _has_result(result: Mapping[str, Any] | None) -> bool:
    return result is not None and result["status"] in TESTED


def _withhold_readers(outcome: Audit, assets: Mapping[str, Asset]) -> None:
    changed = True
    while changed:
        changed = False
        for key, asset in assets.items():
            if key in outcome.withheld:
                continue
            for upstream in asset.deps:
                if upstream in outcome.withheld:
                    outcome.withheld[key] = f"it reads {assets[upstream].name}, which was withheld"
                    changed = True
                    break
