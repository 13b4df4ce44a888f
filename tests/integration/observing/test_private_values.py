"""What stands in rows is in no log that is collected, in no span and in no event, whatever dbt and DuckDB say of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.integration.observing.observed import (
    PERSON,
    SECRET,
    Project,
    lineage_to,
    make_product,
    project,
    tracing,
    tree_of,
)
from tests.receivers import LineageReceiver, OtlpReceiver

STORED = """\
      - name: customer
        data_tests:
          - accepted_values:
              arguments: {values: [nobody]}
              config: {severity: error, store_failures: true}
"""
CANNOT = "select id as order_id, cast(customer as integer) as customer, amount from {{ ref('raw_orders') }}\n"


@dataclass
class Watched:
    project: Project
    product: Path
    otlp: OtlpReceiver
    lineage: LineageReceiver

    def told(self) -> str:
        return repr(self.otlp.spans()) + repr(self.otlp.metrics()) + json.dumps(self.lineage.events())

    def event_log(self, run_id: str) -> str:
        return "\n".join(str(entry) for entry in self.project.instance.all_logs(run_id))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with OtlpReceiver() as otlp, LineageReceiver() as lineage, project(tmp_path) as made:
        product = make_product(tmp_path, tracing(otlp), lineage_to(lineage))
        manifest = tmp_path / "manifest-shop.yaml"
        manifest.write_text(manifest.read_text().replace("format: text", "format: json"))
        yield Watched(made, product, otlp, lineage)


@pytest.mark.slow
def test_the_rows_that_a_failing_test_stores_stay_in_the_database(
    watched: Watched, capfd: pytest.CaptureFixture[str]
) -> None:
    schema = watched.product / "models" / "schema.yml"
    head, _, tail = schema.read_text().partition("      - name: customer\n")
    schema.write_text(head + STORED + tail[tail.index("      - {name: amount") :])
    ran = watched.project.run(watched.product)
    assert not ran.success
    printed = capfd.readouterr()
    assert "accepted_values" in printed.out + printed.err
    for text in (printed.out, printed.err, watched.told(), watched.event_log(ran.run_id)):
        assert PERSON not in text and SECRET not in text
    (failed,) = [s for s in tree_of(watched.otlp, ran.run_id).spans if "accepted_values" in s.name]
    assert failed.attributes["floe.dbt.status"] == "fail"


def test_a_value_that_duckdb_quotes_is_in_no_json_line(
    watched: Watched, capfd: pytest.CaptureFixture[str]
) -> None:
    (watched.product / "models" / "staging" / "stg_orders.sql").write_text(CANNOT)
    ran = watched.project.run(watched.product)
    assert not ran.success
    printed = capfd.readouterr()
    lines: list[dict[str, Any]] = [
        json.loads(line)
        for line in (printed.out + printed.err).splitlines()
        if line.startswith('{"timestamp"')
    ]
    assert any("Could not convert string" in line["message"] and "INT32" in line["message"] for line in lines)
    for text in (printed.out, printed.err, watched.told()):
        assert PERSON not in text
    # Who looks for the wrong row finds it on Dagster's page of the run.
    assert PERSON in watched.event_log(ran.run_id)
