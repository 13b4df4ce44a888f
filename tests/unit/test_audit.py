"""What dbt's results say of the tables: published only with the result of every error test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe_dagster.execution.audit import Audit, audit
from floe_dagster.schemas.product_index import Check
from tests.index import asset, check, product_index

ASSETS = {"a": [], "b": ["a"], "c": ["b"], "d": []}
STATUSES = ("success", "error", "skipped", "partial success", "no-op", None)
TEST_STATUSES = ("pass", "warn", "fail", "error", "runtime error", "skipped", "no-op", None)


def judge(
    checks: list[Check],
    planned: str = "a b c d",
    needed: str | None = None,
    of_run: str = "",
    **statuses: str | None,
) -> Audit:
    """Audit results by id; everything that is not named passed, what is None has no result."""
    index = product_index([asset(key, *deps, name=key.upper()) for key, deps in ASSETS.items()], checks)
    asked = [each.id for each in checks] if needed is None else needed.split()
    passed = dict.fromkeys(planned.split(), "success") | dict.fromkeys(asked, "pass")
    results = [
        {"unique_id": key, "status": status, "message": f"{key} {status}"}
        for key, status in {**passed, **statuses}.items()
        if status is not None
    ]
    return audit(
        index,
        {"results": results},
        {*planned.split(), *asked},
        lambda message: message,
        needed=asked,
        of_run=of_run.split(),
    )


def test_all_is_clean_where_all_passed() -> None:
    outcome = judge([check("t", "a"), check("w", "d", severity="warn")], w="warn")
    assert outcome.clean == set(ASSETS) and not outcome.withheld and not outcome.unplanned


@pytest.mark.parametrize("status", ["skipped", "no-op", None])
def test_an_error_test_without_a_result_withholds_its_table(status: str | None) -> None:
    outcome = judge([check("t", "a")], t=status)
    assert outcome.withheld["a"].startswith("test t has no result: dbt ")
    assert outcome.withheld["b"] == "it reads A, which was withheld"
    assert outcome.clean == {"d"}


def test_a_warning_without_a_result_withholds_nothing() -> None:
    assert judge([check("t", "a", severity="warn")], t=None).clean == set(ASSETS)


@pytest.mark.parametrize(
    ("severity", "may_warn", "stands"), [("error", False, False), ("error", True, True), ("warn", True, True)]
)
def test_an_error_test_that_turns_into_a_warning_in_the_run_withholds(
    severity: str, may_warn: bool, stands: bool
) -> None:
    """As where the severity depends on the command of dbt, or on a variable of the run."""
    outcome = judge([check("t", "a", severity=severity, may_warn=may_warn)], t="warn")
    assert ("a" in outcome.clean) == stands


def test_a_test_that_another_phase_runs_is_not_waited_for() -> None:
    assert judge([check("t", "a")], needed="").clean == set(ASSETS)


def test_the_cause_is_named_before_its_consequences() -> None:
    tests = [check("u", "a", type="unit_test"), check("t", "a"), check("s", "", "b"), check("r", "b d")]
    failed = judge(tests, u="fail", a="skipped", t="skipped", s="pass", b="skipped", c="skipped", r="skipped")
    assert failed.withheld == {
        "a": "unit test u failed: u fail",
        "b": "it reads A, which was withheld",
        "c": "it reads B, which was withheld",
        "d": "test r has no result: it reads B, which was withheld",
    }
    # Of a source: its readers are skipped, and the test says why.
    assert judge(tests, s="fail", b="skipped", c="skipped").withheld["b"] == "test s failed: s fail"


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("function.shop.area", "function area"),
        ("operation.shop.shop-on-run-start-0", "hook shop-on-run-start-0"),
    ],
)
def test_what_is_skipped_since_no_asset_and_no_test_failed_names_what_did(key: str, named: str) -> None:
    outcome = judge([check("t", "a")], a="skipped", t="skipped", **{key: "error"})
    assert outcome.withheld["a"] == f"test t has no result: dbt skipped it, since {named} failed: {key} error"
    assert (
        judge([], a="skipped", **{key: "error"})
        .withheld["a"]
        .endswith(f", since {named} failed: {key} error")
    )
    assert judge([], a="skipped", **{key: "success"}).withheld["a"] == "dbt skipped it"


HEAD = "Runtime Error in model a (models/a.sql)"


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (None, "test t failed"),
        ("", "test t failed"),
        (
            "Got 1 result, configured to fail if != 0",
            "test t failed: Got 1 result, configured to fail if != 0",
        ),
        (HEAD, f"test t failed: {HEAD}"),
        (f"{HEAD}\n  Binder Error: no column\n  LINE 1", f"test t failed: {HEAD}: Binder Error: no column"),
        (
            "\n\nactual differs from expected:\n\n@@ ,id\r\n\x1b[32m+++,4\x1b[0m\r\n---,5\r\n\n",
            "test t failed: actual differs from expected: @@ ,id; +++,4; ---,5",
        ),
        ("x" * 1000, f"test t failed: {'x' * 499}…"),
    ],
)
def test_a_reason_says_what_dbt_said(message: str | None, told: str) -> None:
    index = product_index([asset("a")], [check("t", "a")])
    results = [
        {"unique_id": "a", "status": "success", "message": "OK"},
        {"unique_id": "t", "status": "fail", "message": message},
    ]
    outcome = audit(
        index, {"results": results}, {"a", "t"}, lambda text: text.partition("\n")[0], needed=["t"]
    )
    assert outcome.withheld == {"a": told}


def test_what_the_run_did_not_build_is_not_judged() -> None:
    tests = [check("t", "a b")]
    assert judge(tests, planned="b", t="fail").withheld.keys() == {"b", "c"}
    assert judge(tests, planned="b", of_run="a", t="fail").withheld.keys() == {"a", "b", "c"}


def test_what_another_engine_builds_later_is_judged_by_the_test_that_ran_before() -> None:
    tests = [check("s", "", "b d")]
    assert judge(tests, planned="a b", of_run="d", s="fail").withheld.keys() == {"b", "c", "d"}
    assert judge(tests, planned="a b", of_run="d", s=None).withheld.keys() == {"b", "c", "d"}
    assert judge(tests, planned="a b", s="fail").withheld.keys() == {"b", "c"}


def test_what_dbt_was_asked_for_and_did_not_execute_is_named() -> None:
    tests = [check("t", "a"), check("w", "d", severity="warn"), check("x", "d", severity="warn")]
    outcome = judge(
        tests,
        planned="a b c d function.shop.area",
        t=None,
        w=None,
        x="skipped",
        **{"function.shop.area": None},
    )
    # The table of an error test is withheld, and names it.
    assert outcome.withheld["a"].startswith("test t has no result: dbt did not run it")
    assert outcome.missing == ["function.shop.area", "w"] and "d" in outcome.clean


def test_what_dbt_executed_and_was_not_asked_for_is_named() -> None:
    hook = {"operation.shop.shop-on-run-start-0": "success"}
    outcome = judge([], planned="a b", d="success", **hook, **{"model.other.x": "error", "c": "skipped"})
    assert outcome.unplanned == ["d", "model.other.x"]


def test_a_hook_that_failed_is_told() -> None:
    key = "operation.shop.shop-on-run-end-0"
    assert judge([], **{key: "error"}).hooks == {key: f"{key} error"}
    assert judge([], **{key: "success"}).hooks == {}


@pytest.mark.parametrize(
    ("named", "stands"),
    [
        ('"db"."main"."a"', True),
        ('"other"."MAIN"."A"', True),
        (None, True),
        ('"db"."main"."a_tested"', False),
        ('"db"."other"."a"', False),
        ('"db"."main"."a""."', False),
    ],
)
def test_what_dbt_built_under_another_name_is_withheld(named: str | None, stands: bool) -> None:
    index = product_index([asset("a", relation=("db", "main", "a"))])
    results = {"results": [{"unique_id": "a", "status": "success", "message": "", "relation_name": named}]}
    assert bool(audit(index, results, {"a"}, str).clean) == stands


@given(st.data())
def test_no_table_is_clean_without_all_that_it_stands_on(data: st.DataObject) -> None:
    """Whatever dbt reports: an oracle that knows the rule alone agrees on what is clean."""
    judged = st.lists(st.sampled_from(sorted(ASSETS)), min_size=1, max_size=3, unique=True)
    checks = [
        check(
            f"t{number}", " ".join(data.draw(judged)), severity=data.draw(st.sampled_from(["error", "warn"]))
        )
        for number in range(data.draw(st.integers(0, 4)))
    ]
    statuses = {key: data.draw(st.sampled_from(STATUSES)) for key in ASSETS}
    results = {each.id: data.draw(st.sampled_from(TEST_STATUSES)) for each in checks}
    outcome = judge(checks, **statuses, **results)

    def stands(key: str) -> bool:
        good = {"error": {"pass", "warn"}, "warn": {"pass", "warn", "skipped", "no-op", None}}
        return (
            statuses[key] == "success"
            and all(results[each.id] in good[each.severity] for each in checks if key in each.withholds)
            and all(stands(upstream) for upstream in ASSETS[key])
        )

    assert outcome.clean == {key for key in ASSETS if stands(key)}
    assert outcome.withheld.keys() == ASSETS.keys() - outcome.clean
