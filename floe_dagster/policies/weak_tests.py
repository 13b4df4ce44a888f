"""Tests that cannot fail: whatever the table holds, they pass. They are found, and no coverage."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from floe_dagster.findings import Finding
from floe_dagster.policies.allowed import ALLOW, Allowed, WeakTest
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy
from floe_dagster.policies.sql import has_no_rows, holds_for, names_read, never_holds

FAILURES_THAT_COUNT = 10_000
"""A test that so many failing rows do not make fail is one that no table reaches."""


@dataclass(frozen=True, slots=True)
class Weakness:
    """Why a test cannot fail.

    Args:
        kind: As `governance.allow.weak_tests` names it.
        why: What of it does that; follows the test's name.
        fix: What to do.
    """

    kind: WeakTest
    why: str
    fix: str


class WeakTests(Policy):
    """Each test can fail."""

    name = "weak_tests"
    title = "Tests that can fail"
    description = (
        "No test passes whatever the table holds: with a `where` that no row meets, `limit: 0`, an `error_if` that "
        "10,000 failing rows do not reach, a fixed `fail_calc`, a query without rows, or `enabled: false`; and no model has "
        "tests of `severity: warn` alone where coverage is asked for."
    )
    set_by = "`governance.allow.weak_tests`"
    setting = ALLOW
    looks_at = ("model", "snapshot", "test", "macro", "package")

    def check(self, project: Project, setting: Allowed | None) -> Iterator[Finding]:
        """Each test can fail."""
        allowed = allowed_weak_tests(project)
        for test in project.tests:
            weakness = weakness_of(test, project)
            if weakness is not None and weakness.kind not in allowed:
                yield self._finding(
                    project, test, f"test {test['name']!r} cannot fail: {weakness.why}", weakness.fix
                )
        for test in project.disabled_tests if "disabled" not in allowed else ():
            yield self._finding(
                project,
                test,
                f"test {test['name']!r} is switched off",
                "Take `enabled: false` out, or the test.",
            )
        if "severity" not in allowed and _coverage_is_asked(project):
            yield from self._warnings_alone(project)

    def _warnings_alone(self, project: Project) -> Iterator[Finding]:
        counted = coverage(project)
        for test in project.tests:
            if not _only_warns(test) or weakness_of(test, project) is not None:
                continue
            uncovered = sorted(
                project.by_id[key]["name"]
                for key in judged_by(test)
                if key in project.by_id and not counted.get(key)
            )
            if uncovered:
                yield self._finding(
                    project,
                    test,
                    f"test {test['name']!r} only warns (severity: warn), and {', '.join(uncovered)} has no test that fails",
                    "Take `severity: warn` out, or add a test that fails.",
                )

    def _finding(self, project: Project, test: Mapping[str, Any], message: str, fix: str) -> Finding:
        attached = project.by_id.get(test.get("attached_node") or "")
        place = (
            {**test, "patch_path": attached.get("patch_path"), "name": attached["name"]} if attached else test
        )
        return project.finding(
            place, message, fix, "weak-test", column=test.get("column_name"), name=test["name"]
        )


def allowed_weak_tests(project: Project) -> Collection[str]:
    """Return the kinds of weak tests that the platform allows.

    Args:
        project: With the settings in force.
    """
    allowed = project.context.settings.get(ALLOW.name)
    return (allowed.weak_tests or ()) if allowed is not None else ()


def coverage(project: Project) -> dict[str, list[str]]:
    """Return the names of the tests that count, by unique id of what they judge.

    Args:
        project: With its tests, and its macros: an empty generic test counts no more than an empty singular one.
    """
    allowed = allowed_weak_tests(project)
    found: dict[str, list[str]] = {}
    for test in project.tests:
        weakness = weakness_of(test, project)
        if weakness is not None and weakness.kind not in allowed:
            continue
        if _only_warns(test) and "severity" not in allowed:
            continue
        for key in judged_by(test):
            found.setdefault(key, []).append(test["name"])
    return found


def judged_by(test: Mapping[str, Any]) -> list[str]:
    """Return the unique ids of what a test judges: what it is attached to, else what its SQL reads outside of comments.

    Args:
        test: Of dbt's manifest.
    """
    if attached := test.get("attached_node"):
        return [attached]
    upstream: list[str] = list(test["depends_on"]["nodes"])
    raw = test.get("raw_code")
    if raw is None:
        return upstream
    names = names_read(raw)
    # A macro may read for the test; what it reads is not seen here.
    macros = [each for each in test["depends_on"].get("macros") or () if not each.startswith("macro.dbt")]
    return [key for key in upstream if _name_of(key) in names or macros]


def weakness_of(test: Mapping[str, Any], project: Project) -> Weakness | None:
    """Return why a test cannot fail; None where it can, as far as its text says.

    Args:
        test: A data test of dbt's manifest.
        project: With its macros, and the engine's SQL.
    """
    config, dialect = test.get("config") or {}, project.dialect
    where = config.get("where")
    if where and never_holds(str(where), dialect):
        return Weakness(
            "where", f"no row meets `where: {where}`", "Write a condition that rows meet, or take it out."
        )
    if config.get("limit") is not None and str(config["limit"]).strip() == "0":
        return Weakness("limit", "`limit: 0` leaves no failing row", "Take `limit: 0` out.")
    threshold = str(config.get("error_if") or "!= 0")
    if not _only_warns(test) and holds_for(FAILURES_THAT_COUNT, threshold, dialect) is False:
        return Weakness(
            "threshold",
            f"{FAILURES_THAT_COUNT:,} failing rows are no error to `error_if: {threshold!r}`",
            "State a threshold that a bad table reaches.",
        )
    calculation = str(config.get("fail_calc") or "count(*)")
    if _is_fixed(calculation):
        return Weakness(
            "threshold",
            f"`fail_calc: {calculation}` counts no rows",
            "Take fail_calc out, or have it count rows.",
        )
    if (body := _body(test, project)) is not None and has_no_rows(body, dialect):
        return Weakness(
            "empty", "its query gives no row, whatever the tables hold", "Write a query for what must not be."
        )
    is_singular = not test.get("attached_node") and test.get("raw_code") is not None
    if is_singular and test["depends_on"]["nodes"] and not judged_by(test):
        return Weakness(
            "empty", "it names what it reads in comments alone", "Read with ref() what the test is about."
        )
    return None


def _body(test: Mapping[str, Any], project: Project) -> str | None:
    """Return the query of a singular test, or of a generic one that the project or a package defines."""
    generic = test.get("test_metadata")
    if not generic:
        raw = test.get("raw_code")
        return None if raw is None else str(raw)
    names = {f"test_{generic['name']}", f"default__test_{generic['name']}"}
    for macro in project.macros:
        if macro["name"] in names:
            return str(macro.get("macro_sql") or "")
    return None


def _is_fixed(calculation: str) -> bool:
    """Whether what counts failing rows asks nothing of them: a number, or something times 0."""
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    try:
        parsed = parse_one(f"select {calculation}").expressions[0].unalias()
    except (SqlglotError, IndexError):
        return False
    times_zero = any(
        isinstance(side, exp.Literal) and side.name == "0"
        for product in parsed.find_all(exp.Mul)
        for side in (product.this, product.expression)
    )
    return times_zero or (parsed.find(exp.AggFunc) is None and parsed.find(exp.Column) is None)


def _only_warns(test: Mapping[str, Any]) -> bool:
    return str((test.get("config") or {}).get("severity") or "error").lower() == "warn"


def _coverage_is_asked(project: Project) -> bool:
    gates = project.context.settings.get("quality_gates")
    return bool(gates is not None and gates.minimum_test_coverage)


def _name_of(unique_id: str) -> str:
    parts = unique_id.split(".")
    # A version follows the name of a model: model.shop.orders.v2.
    return parts[2] if parts[0] == "model" and len(parts) > 3 else parts[-1]
