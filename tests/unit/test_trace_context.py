"""What carries a trace from process to process."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from floe_dagster.observability.trace_context import (
    TraceParent,
    lineage_run_id,
    run_span_id,
    step_span_id,
    trace_id_of,
)

TRACE_IDS, SPAN_IDS = st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1)
GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FORM = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
LATER = re.compile(r"(?!00|ff)[0-9a-f]{2}" + FORM.pattern[2:] + r"(-[ -~]*)?")
LATER_VERSIONS = st.integers(1, 254).map(lambda version: f"{version:02x}")
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@given(st.builds(TraceParent, TRACE_IDS, SPAN_IDS, st.booleans()))
def test_what_is_written_is_read(parent: TraceParent) -> None:
    assert FORM.fullmatch(str(parent))
    assert TraceParent.parse(str(parent)) == parent


@given(st.builds(TraceParent, TRACE_IDS, SPAN_IDS, st.booleans()))
def test_opentelemetry_reads_the_same(parent: TraceParent) -> None:
    from opentelemetry import trace

    context = TraceContextTextMapPropagator().extract({"traceparent": str(parent)})
    found = trace.get_current_span(context).get_span_context()
    assert (found.trace_id, found.span_id, found.trace_flags.sampled) == (
        parent.trace_id,
        parent.span_id,
        parent.sampled,
    )


def test_the_example_of_the_standard() -> None:
    parent = TraceParent.parse(GOOD)
    assert parent == TraceParent(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, True)
    assert str(parent) == GOOD


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("ff", True)])
def test_one_flag_counts(flags: str, sampled: bool) -> None:
    parent = TraceParent.parse(GOOD[:-2] + flags)
    assert parent and parent.sampled == sampled


INVALID = [
    None,
    "",
    GOOD + "\n",
    "\n" + GOOD,
    " " + GOOD,
    GOOD + " ",
    GOOD.upper(),
    GOOD[:-1],
    GOOD + "-00",
    "ff" + GOOD[2:],
    "ff" + GOOD[2:] + "-00",
    "FE" + GOOD[2:],
    "0" + GOOD[2:],
    "000" + GOOD[2:],
    GOOD.replace("-", "_"),
    f"00-{'0' * 32}-00f067aa0ba902b7-01",
    f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    GOOD.replace("4", "g", 1),
    # A digit, but none of ASCII.
    GOOD.replace("4", "\u0664", 1),
]


@pytest.mark.parametrize("text", INVALID)
def test_what_the_standard_forbids_says_nothing(text: str | None) -> None:
    assert TraceParent.parse(text) is None


@given(st.text(max_size=80) | st.text(alphabet="0123456789abcdef-\n ", min_size=50, max_size=60))
def test_no_text_is_more_than_the_standard_allows(text: str) -> None:
    parent = TraceParent.parse(text)
    if parent is not None:
        assert FORM.fullmatch(text) or LATER.fullmatch(text)
        assert str(parent)[2:-2] == text[2:53]


@given(st.builds(TraceParent, TRACE_IDS, SPAN_IDS, st.booleans()), LATER_VERSIONS, st.none() | PRINTABLE)
def test_a_later_version_is_read_as_far_as_it_is_known(
    parent: TraceParent, version: str, more: str | None
) -> None:
    text = version + str(parent)[2:] + ("" if more is None else f"-{more}")
    assert TraceParent.parse(text) == parent
    # What is handed on is of the version that is spoken here.
    assert str(TraceParent.parse(text)).startswith("00-")


@given(LATER_VERSIONS, PRINTABLE.filter(lambda more: not more.startswith("-")).filter(bool))
def test_a_later_version_with_more_but_no_dash_says_nothing(version: str, more: str) -> None:
    assert TraceParent.parse(version + GOOD[2:] + more) is None


@given(LATER_VERSIONS, st.integers(0, len(GOOD) - 1))
def test_a_later_version_that_is_too_short_says_nothing(version: str, length: int) -> None:
    assert TraceParent.parse((version + GOOD[2:])[:length]) is None


@given(LATER_VERSIONS)
def test_what_is_invalid_stays_so_in_later_versions(version: str) -> None:
    for text in INVALID:
        if text is not None and text.startswith("00-") and text != f"{GOOD}-00":
            assert TraceParent.parse(version + text[2:]) is None


@given(st.data())
def test_one_changed_letter_is_another_position_or_none(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    letter = data.draw(st.characters(codec="utf-8").filter(lambda letter: letter != GOOD[at]))
    parent = TraceParent.parse(GOOD[:at] + letter + GOOD[at + 1 :])
    if parent is not None:
        assert letter in "0123456789abcdef" and (str(parent) != GOOD or at < 2 or at >= len(GOOD) - 2)


@given(st.text(), st.text(), st.integers(0, 5))
def test_ids_are_derived_and_in_range(run: str, step: str, attempt: int) -> None:
    assert trace_id_of(run) == trace_id_of(run) and 0 < trace_id_of(run) < 1 << 128
    assert 0 < run_span_id(run) < 1 << 64
    span = step_span_id(run, step, attempt)
    assert span == step_span_id(run, step, attempt) and 0 < span < 1 << 64
    assert span != step_span_id(run, step, attempt + 1) != run_span_id(run)
    part = lineage_run_id(run, step)
    assert part == lineage_run_id(run, step) and str(uuid.UUID(part)) == part


def test_ids_stay_what_they_are() -> None:
    # Another release has to name the spans of a run that this one began.
    run = "5e3f0c8e-5f0a-4a7e-9a55-2d2ac0b0c7a1"
    assert f"{trace_id_of(run):032x}" == "c440b34e81d9d20158b5eb0f8064ab5d"
    assert f"{run_span_id(run):016x}" == "214aaae4eb1b32c0"
    assert f"{step_span_id(run, 'shop_dbt', 0):016x}" == "a035d96acd85fb98"
    assert lineage_run_id(run, "model.shop.orders") == "c2f57cd8-6048-550d-817f-cbe1691e6ae1"


@given(st.lists(st.tuples(st.text(max_size=4), st.text(max_size=4), st.integers(0, 3)), unique=True))
def test_different_steps_have_different_spans(steps: list[tuple[str, str, int]]) -> None:
    # NUL separates the parts; ids of runs and keys of steps hold none.
    clean = {(run.replace("\0", ""), step.replace("\0", ""), attempt) for run, step, attempt in steps}
    assert len({step_span_id(*one) for one in clean}) == len(clean)
