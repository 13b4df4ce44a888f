"""Every event that floe-dagster makes, against the published OpenLineage schemas; needs FLOE_SPECS."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openlineage.client.serde import Serde

from floe_dagster.observability.lineage.events import FAIL
from floe_dagster.observability.lineage.facets import Assertion, TableState, input_dataset, output_dataset
from tests.services.openlineage_schemas import OpenLineageSchemas
from tests.unit.test_lineage_events import ORDERS, REST, WHEN, every_event, named, product

EVENTS = {name: json.loads(json.dumps(Serde.to_dict(event))) for name, event in every_event().items()}


@pytest.fixture(scope="module")
def schemas() -> OpenLineageSchemas:
    return OpenLineageSchemas.from_environment()


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_fits_the_published_schemas(schemas: OpenLineageSchemas, name: str) -> None:
    schemas.check(EVENTS[name])


def test_the_events_hold_every_facet_that_there_is_a_function_for() -> None:
    found: dict[str, set[str]] = {}
    for event in EVENTS.values():
        for place, facets in (
            ("run", event["run"].get("facets", {})),
            ("job", event["job"].get("facets", {})),
            *(("dataset", one.get("facets", {})) for one in [*event["inputs"], *event["outputs"]]),
            *(("input", one.get("inputFacets", {})) for one in event["inputs"]),
            *(("output", one.get("outputFacets", {})) for one in event["outputs"]),
        ):
            found.setdefault(place, set()).update(facets)
    assert found == {
        "run": {"processing_engine", "tags", "parent", "nominalTime", "errorMessage", "test"},
        "job": {"jobType", "ownership", "tags", "documentation", "sourceCodeLocation", "sql"},
        "dataset": {
            "symlinks",
            "datasetType",
            "dataSource",
            "schema",
            "columnLineage",
            "ownership",
            "tags",
            "documentation",
            "catalog",
            "storage",
            "lifecycleStateChange",
            "version",
        },
        "input": {"dataQualityAssertions"},
        "output": {"outputStatistics"},
    }


texts = st.text(min_size=1, max_size=20)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_whatever_the_texts_are_the_event_fits(schemas: OpenLineageSchemas, data: st.DataObject) -> None:
    text: Any = lambda: data.draw(texts)  # noqa: E731
    state = TableState(
        columns=[(text(), text(), data.draw(st.none() | texts))],
        lineage={text(): [(named("raw"), text())]},
        rows=data.draw(st.none() | st.integers(0)),
        bytes=data.draw(st.none() | st.integers(0)),
        snapshot=data.draw(st.none() | texts),
    )
    output = output_dataset(
        named("orders"),
        state,
        catalog=REST,
        owners=[text()],
        tags=[(text(), data.draw(st.text(max_size=3)), data.draw(st.none() | texts))],
        description=data.draw(st.none() | texts),
    )
    assertion = Assertion(
        text(),
        text(),
        data.draw(st.booleans()),
        data.draw(st.sampled_from(["error", "warn"])),
        text(),
        text(),
        text(),
    )
    event = product(description=text(), labels={text(): text()}).asset_event(
        FAIL,
        WHEN,
        replace(ORDERS, owners=(text(),), tags=(text(),), description=text()),
        sql=text(),
        inputs=[input_dataset(named("raw"), snapshot=text(), assertions=[assertion])],
        outputs=[output],
        error=text(),
    )
    schemas.check(json.loads(json.dumps(Serde.to_dict(event))))
