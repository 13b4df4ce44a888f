"""A Dagster run as trace and lineage see it, the same from every process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.products import is_own, products_of
from floe_dagster.definitions.observing.times import nanoseconds, when
from floe_dagster.definitions.source_links import SourceLinks
from floe_dagster.home import display_path
from floe_dagster.observability.telemetry import fail
from floe_dagster.observability.trace_context import (
    TRACEPARENT,
    TraceParent,
    lineage_run_id,
    run_span_id,
    trace_id_of,
)

if TYPE_CHECKING:
    from floe_dagster.observability.lineage.events import ProductLineage

CLOSED = "floe/observed"
"""Run tag, with the product's slug after a dot: the last state of the run that was told to the outside."""
PARENT = "floe/trace_parent"
"""Run tag that keeps what the run's own position in `traceparent` replaces: where its span hangs."""
_SCHEDULED = ".dagster/scheduled_execution_time"
_ENDED = {"SUCCESS": "COMPLETE", "FAILURE": "FAIL", "CANCELED": "ABORT"}


class ObservedRun:
    """One Dagster run of one product.

    Args:
        observed: The product.
        run: The run.
        instance: That knows it.
        root: Tags of the run that it re-executes, whose trace goes on.
    """

    def __init__(
        self,
        observed: Observed,
        run: dg.DagsterRun,
        instance: dg.DagsterInstance,
        root: Mapping[str, str] | None = None,
    ) -> None:
        self.observed = observed
        self.run = run
        self._instance = instance
        tags = {**(root or {}), **run.tags}
        self.parent, self.trace = _trace_of(observed, tags, self.lineage_id)

    @cached_property
    def is_shared(self) -> bool:
        """Whether other products have a part in the run."""
        return self._is_shared(self.run)

    def _is_shared(self, run: dg.DagsterRun) -> bool:
        if is_own(run, self.observed.slug):
            return False
        try:
            return not products_of(run, self._instance) <= {self.observed.slug}
        except Exception:  # Dagster's storage is away, which is for the run to say
            return False

    @property
    def lineage_id(self) -> str:
        """The OpenLineage run: Dagster's run id, unless several products share the run."""
        return lineage_run_id(self.run.run_id, self.observed.slug) if self.is_shared else self.run.run_id

    @property
    def job(self) -> str:
        """The name of its job for people; materializing assets by hand has no job of its own."""
        name = self.run.job_name
        return f"{self.observed.slug}_assets" if name.startswith("__ASSET_JOB") else name

    def tags(self) -> dict[str, str]:
        """Return the run tags by which the trace is found."""
        if not self.observed.telemetry.enabled or self.is_shared:
            # Each product of a run that they share has a trace of its own, or a span of its own under the caller's.
            return {}
        return {TRACEPARENT: str(self.trace)} | ({PARENT: str(self.parent)} if self.parent else {})

    def identity(self) -> dict[str, str]:
        """Return the ids of the run everywhere: properties of snapshots."""
        ids = {"floe.openlineage-run-id": self.lineage_id} if self.observed.lineage.enabled else {}
        if self.observed.telemetry.enabled:
            ids["floe.trace-id"] = f"{self.trace.trace_id:032x}"
        return ids

    def attributes(self) -> dict[str, Any]:
        """Return the ids of the run as attributes of spans."""
        return {
            "floe.product": self.observed.slug,
            "floe.dagster.run_id": self.run.run_id,
            "floe.dagster.job": self.run.job_name,
            "floe.openlineage.run_id": self.lineage_id,
        }

    def lineage(self) -> ProductLineage:
        """Return what builds the run's events."""
        import dagster

        # OpenLineage's client takes a tenth of the time until a run begins, and most runs have no lineage to tell.
        from floe_dagster.observability.lineage.events import LineageRun, ProductLineage

        product, observed = self.observed.product, self.observed
        tags = {"dagster_run_id": self.run.run_id, "dagster_job": self.run.job_name}
        if observed.telemetry.enabled:
            tags["trace_id"] = f"{self.trace.trace_id:032x}"
            tags["span_id"] = f"{self.trace.span_id:016x}"
        return ProductLineage(
            slug=observed.slug,
            namespace=observed.config.lineage_namespace or observed.slug,
            owner=product.owner or observed.slug,
            description=product.description,
            labels=product.labels,
            source=self._source,
            run=LineageRun(
                run_id=self.lineage_id,
                job=self.job,
                root_run_id=self._root_id,
                nominal_time=self.run.tags.get(_SCHEDULED),
                tags=tags,
            ),
            engine=("Dagster", dagster.__version__),
        )

    @cached_property
    def _root_id(self) -> str:
        """The OpenLineage run of the first of the runs that continue each other."""
        root = self.run.root_run_id
        if root is None:
            return self.lineage_id
        try:
            # It may have been about more products than a run that repeats some of its steps.
            found = self._instance.get_run_by_id(root)
        except Exception:  # Dagster's storage is away, which is for the run to say
            found = None
        is_shared = self._is_shared(found) if found else self.is_shared
        return lineage_run_id(root, self.observed.slug) if is_shared else root

    @cached_property
    def _links(self) -> SourceLinks:
        # Each event of a model asks.
        return SourceLinks.of_product(self.observed.product.repository, self.observed.product_dir)

    def _source(self, file: str) -> tuple[str, str | None, str] | None:
        path = display_path(self.observed.product_dir / file, self._links.project_root)
        url = self._links.url(path)
        return (url, self._links.repository, path) if url else None

    def close(
        self,
        state: str,
        *,
        created: float | None,
        started: float | None,
        ended: float,
        error: str | None,
        assertions: Sequence[Any] = (),
    ) -> None:
        """Tell that the run is over: its span, and its last OpenLineage event.

        Args:
            state: COMPLETE, FAIL or ABORT.
            created: Seconds since the epoch, when it was asked for.
            started: When it started; None where it never did.
            ended: When it ended.
            error: What a user would want to read.
            assertions: Outcomes of policies that the run evaluated.
        """
        observed = self.observed
        begun = created or started or ended
        span = observed.telemetry.start_span(
            f"run {self.job}",
            self.parent,
            trace_id=self.trace.trace_id,
            span_id=self.trace.span_id,
            start=nanoseconds(begun),
            kind="CONSUMER" if self.parent else "INTERNAL",
            attributes={**self.attributes(), "floe.dagster.status": state},
        )
        if created and started:
            launch = observed.telemetry.start_span(
                "launch", self.trace, start=nanoseconds(created), attributes=self.attributes()
            )
            launch.end(nanoseconds(max(started, created)))
        if state != "COMPLETE" and observed.telemetry.enabled:
            fail(span, error or "the run was canceled", "canceled" if state == "ABORT" else "run_failed")
        span.end(nanoseconds(max(ended, begun)))
        if observed.lineage.enabled:
            event = self.lineage().run_event(state, when(ended), error=error, assertions=assertions)
            observed.lineage.emit(event)


def closed_mark(run: dg.DagsterRun, slug: str, state: str | None) -> dict[str, str]:
    """Return the run tag that says that a state of this very run was told.

    Args:
        run: A re-execution of it inherits the tag, so the tag names it.
        slug: Of the product that it was told of: several may share the run.
        state: COMPLETE, FAIL or ABORT.
    """
    return {f"{CLOSED}.{slug}": f"{state} {run.run_id}"}


def ended_state(status: str) -> str | None:
    """Return OpenLineage's state for the status of a run; None while it goes on."""
    return _ENDED.get(status)


def _trace_of(
    observed: Observed, tags: Mapping[str, str], base: str
) -> tuple[TraceParent | None, TraceParent]:
    own = run_span_id(base)
    carried = TraceParent.parse(tags.get(TRACEPARENT))
    if carried is not None and carried.span_id != own:
        return carried, TraceParent(carried.trace_id, own, carried.sampled)
    if carried is not None:
        # Another process of the run has been here.
        return TraceParent.parse(tags.get(PARENT)), carried
    trace_id = trace_id_of(base)
    return None, TraceParent(trace_id, own, observed.telemetry.is_sampled(trace_id))
