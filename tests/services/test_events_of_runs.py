"""Every event that runs in Dagster told, against the published OpenLineage schemas; needs FLOE_SPECS."""

from __future__ import annotations

import pytest

from tests.integration.observing.test_one_run import (  # noqa: F401 - fixtures
    Seen,
    broken,
    seen,
    seen_over_http,
)
from tests.integration.observing.test_three_products import Developed, developed  # noqa: F401 - a fixture
from tests.services.openlineage_schemas import OpenLineageSchemas


@pytest.fixture(scope="module")
def schemas() -> OpenLineageSchemas:
    return OpenLineageSchemas.from_environment()


def test_every_event_of_a_compilation_and_a_run_fits(schemas: OpenLineageSchemas, seen: Seen) -> None:  # noqa: F811
    events = seen.lineage.events()
    assert {"shop_compile", "shop_run", "shop.mart_customers"} <= {event["job"]["name"] for event in events}
    for event in events:
        schemas.check(event)


def test_every_event_of_a_run_that_failed_fits(schemas: OpenLineageSchemas, broken: Seen) -> None:  # noqa: F811
    events = broken.lineage.events()
    assert {"FAIL", "COMPLETE"} <= {event["eventType"] for event in events}
    for event in events:
        schemas.check(event)


def test_every_event_of_dagster_dev_and_three_products_fits(
    schemas: OpenLineageSchemas,
    developed: Developed,  # noqa: F811
) -> None:
    events = developed.lineage.events()
    assert {f"{slug}_run" for slug in developed.runs} <= {event["job"]["name"] for event in events}
    for event in events:
        schemas.check(event)
