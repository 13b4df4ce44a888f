"""Which models may be published, read from dbt's own results."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from floe_dagster.observability.messages import without_values
from floe_dagster.schemas.product_index import Asset, Check, ProductIndex

_PART = re.compile(r'"((?:[^"]|"")*)"(\.|$)')
BUILT = frozenset({"success", "pass"})
TEST_FAILED = frozenset({"fail", "error", "runtime error"})
TESTED = TEST_FAILED | {"pass", "warn"}
"""Statuses of a test that was executed."""
SKIPPED = "skipped"
LONGEST = 500
"""So many characters of what dbt says of one node stand in a reason; the run's log has all of it."""
_HEAD = re.compile(r"[\w ]+ Error in \w+ .+ \(.+\)")
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
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
        missing: Ids of what dbt was asked for and gave no result of, where no table is withheld for it: functions, tests of
            severity `warn`.
        hooks: What dbt said of each hook that failed, by id.
    """

    clean: set[str] = field(default_factory=set)
    withheld: dict[str, str] = field(default_factory=dict)
    tests: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    built: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    unplanned: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
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
    of_run: Collection[str] = (),
) -> Audit:
    """Judge every asset that dbt was asked to build.

    Args:
        index: Its checks and its assets in any order.
        results: dbt's `run_results.json`; None where dbt wrote none.
        planned: Ids of all that dbt was asked to execute.
        explain: Makes one line of what dbt says of a node that failed.
        needed: Ids of the tests whose result a table waits for: where an error test has none, what it withholds is
            withheld.
        of_run: Ids of further assets that the same run has built already, or will build later. What no part of it builds,
            stands as it is.
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
        key: _said(result, explain) or str(result["status"])
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
            outcome.withheld[key] = _with_words(f"dbt: {result['status']}", result, explain)
        elif elsewhere := _built_elsewhere(assets[key], result):
            outcome.withheld[key] = elsewhere
        else:
            outcome.built[key] = result
    judged = wanted | set(of_run)
    for key, result in outcome.tests.items():
        if problem := _problem(checks[key], result, explain):
            _withhold(outcome, checks[key], judged, problem)
    _withhold_readers(outcome, assets)
    # Causes first: a test that dbt skipped says less than why it did.
    cause = _cause(by_id, checks, assets, explain)
    for key in needed:
        check = checks[key]
        if check.is_error and not _has_result(by_id.get(key)):
            _withhold(outcome, check, judged, _without_result(check, by_id.get(key), cause, outcome, assets))
    _withhold_readers(outcome, assets)
    for key in skipped:
        outcome.withheld.setdefault(key, f"dbt skipped it{cause}")
    _withhold_readers(outcome, assets)
    outcome.clean = {key for key in outcome.built if key not in outcome.withheld}
    named = wanted | {key for key in needed if checks[key].is_error}
    outcome.missing = sorted(set(planned) - by_id.keys() - named)
    return outcome


def _withhold(outcome: Audit, check: Check, judged: Collection[str], reason: str) -> None:
    for key in check.withholds:
        if key in judged:
            outcome.withheld.setdefault(key, reason)


def _problem(check: Check, result: Mapping[str, Any], explain: Callable[[str], str]) -> str | None:
    """Return why what a test withholds is withheld, by its result; None where it passed, or may warn."""
    name = f"{_kind(check)} {check.name}"
    if result["status"] in TEST_FAILED:
        return _with_words(f"{name} failed", result, explain)
    if result["status"] == "warn" and check.is_error and not check.may_warn:
        return f"{name} failed: it was compiled as an error test and only warned in this run"
    return None


def _without_result(
    check: Check,
    result: Mapping[str, Any] | None,
    cause: str,
    outcome: Audit,
    assets: Mapping[str, Asset],
) -> str:
    why = f"dbt skipped it{cause}" if result else "dbt did not run it, though it was compiled"
    withheld = next((assets[key] for key in check.reads if key in outcome.withheld), None)
    if result and withheld is not None:
        why = f"it reads {withheld.name}, which was withheld"
    return f"{_kind(check)} {check.name} has no result: {why}"


def _cause(
    by_id: Mapping[str, Mapping[str, Any]],
    checks: Collection[str],
    assets: Collection[str],
    explain: Callable[[str], str],
) -> str:
    """Return why dbt skips what neither a test nor an asset explains: a function or a hook failed; empty where none did."""
    for key, result in by_id.items():
        if key not in checks and key not in assets and result["status"] in TEST_FAILED:
            kind, _, name = key.partition(".")
            shown = f"{'hook' if key.startswith(_HOOK) else kind} {name.rpartition('.')[2]}"
            return f", since {_with_words(f'{shown} failed', result, explain)}"
    return ""


def _with_words(what: str, result: Mapping[str, Any], explain: Callable[[str], str]) -> str:
    said = _said(result, explain)
    return f"{what}: {said}" if said else what


def _said(result: Mapping[str, Any], explain: Callable[[str], str]) -> str:
    """Return what dbt said of a node, in one line: with the engine's words, and a unit test's rows that differ."""
    # Reasons go into events, spans and lineage, where no row of the data belongs.
    message = without_values(_ANSI.sub("", str(result.get("message") or "")).strip())
    said = explain(message)
    first, _, rest = message.partition("\n")
    if said == first.strip() and rest.strip():
        if _HEAD.fullmatch(said):
            # dbt names the node and its file first. What is wrong stands below.
            said = f"{said}: {explain(rest.strip())}"
        elif said.endswith(":"):
            said = f"{said} {'; '.join(line.strip() for line in rest.splitlines() if line.strip())}"
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}…"


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
