"""Where a trace begins: with whoever asked for the run."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from floe_dagster.observability.trace_context import TRACEPARENT, TraceParent
from tests.integration.observing.observed import (
    lineage_to,
    make_product,
    names_below,
    project,
    tracing,
    tree_of,
)
from tests.receivers import LineageReceiver, OtlpReceiver

SCHEDULED = datetime(2026, 1, 2, 6, tzinfo=UTC)


def test_the_tick_of_a_schedule_is_the_root_of_its_runs_trace(tmp_path: Path) -> None:
    with OtlpReceiver() as otlp, LineageReceiver() as lineage, project(tmp_path) as made:
        product = make_product(
            tmp_path, tracing(otlp), lineage_to(lineage), schedule={"cron": "0 6 * * *", "timezone": "UTC"}
        )
        definitions = made.definitions(product)
        schedule = definitions.resolve_schedule_def("shop_schedule")
        with dg.build_schedule_context(
            instance=made.instance,
            scheduled_execution_time=SCHEDULED,
            repository_def=definitions.get_repository_def(),
        ) as context:
            (request,) = schedule.evaluate_tick(context).run_requests or ()
        ran = definitions.resolve_job_def("shop_run").execute_in_process(
            instance=made.instance,
            tags={**request.tags, ".dagster/scheduled_execution_time": SCHEDULED.isoformat()},
        )
        assert ran.success
        tree = tree_of(otlp, ran.run_id)
        assert tree.root.name == "schedule shop_schedule" and tree.root.kind == "PRODUCER"
        assert tree.root.attributes["code.function.name"] == "shop_schedule"
        assert tree.root.attributes["floe.product"] == "shop"
        assert names_below(tree, tree.root) == ["run shop_run"]
        run = tree.one("run shop_run")
        assert run.kind == "CONSUMER" and tree.root.end <= run.end
        assert set(names_below(tree, run)) == {"launch", "step shop_dbt"}
        (event,) = [
            e for e in lineage.events() if e["job"]["name"] == "shop_run" and e["eventType"] == "COMPLETE"
        ]
        assert event["run"]["facets"]["nominalTime"]["nominalStartTime"].startswith("2026-01-02T06:00:00")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["00", "01-", "cc-later-fields"])
def test_a_trace_that_somebody_else_began_goes_on(tmp_path: Path, version: str) -> None:
    caller = TraceParent(0x1234, 0x5678)
    number, dash, more = version.partition("-")
    carried = f"{number}{str(caller)[2:]}{dash}{more}"
    with OtlpReceiver() as otlp, project(tmp_path) as made:
        ran = made.run(make_product(tmp_path, tracing(otlp), None), tags={TRACEPARENT: carried})
        assert ran.success
        spans = [span for span in otlp.spans() if span.name == "run shop_run"]
        assert [(span.trace_id, span.parent_id) for span in spans] == [
            (f"{caller.trace_id:032x}", f"{caller.span_id:016x}")
        ]
