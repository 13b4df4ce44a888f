"""Telemetry and lineage of the products in this process, opened once each."""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from floe_dagster.home import FloeHome
from floe_dagster.observability.delivery import flush_all
from floe_dagster.observability.lineage.datasets import CatalogNames, EngineNames
from floe_dagster.observability.lineage.emitter import LineageEmitter
from floe_dagster.observability.logs import configure_product_logger
from floe_dagster.observability.telemetry import Telemetry
from floe_dagster.schemas.artifacts import CompiledArtifacts, ObservabilityConfig
from floe_dagster.schemas.product_index import Asset, ProductFacts, ProductIndex

FLUSH_SECONDS = 5.0
EXIT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What is said of one product, and to whom.

    Args:
        slug: Of the product.
        config: Of the artifact.
        index: Its assets and checks.
        telemetry: Traces and metrics.
        lineage: OpenLineage events.
        catalog: How its catalog is called.
        engines: How each of its engines is called, by type; the default one first.
        product_dir: Where its sources are edited.
    """

    slug: str
    config: ObservabilityConfig
    index: ProductIndex
    telemetry: Telemetry
    lineage: LineageEmitter
    catalog: CatalogNames
    engines: Mapping[str, EngineNames]
    product_dir: Path

    def engine_of(self, asset: Asset | None) -> EngineNames:
        """Return how the engine of an asset is called; the default one's names where there is no asset.

        Args:
            asset: Of the index.
        """
        return self.engines[asset.engine] if asset else next(iter(self.engines.values()))

    @property
    def product(self) -> ProductFacts:
        """What the index says of the product as a whole."""
        return self.index.product

    @property
    def enabled(self) -> bool:
        """Whether anybody listens."""
        return self.telemetry.enabled or self.lineage.enabled

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Hand over everything; waits as long as the receivers answer promptly.

        Args:
            seconds: At most, for traces and metrics; events have their own limit, `lineage_drain_seconds`. All are sent
                at the same time, so the longer of the two is the limit of both.
        """
        # Into the outboxes alone: nobody has to wait for one receiver before the next.
        self.telemetry.flush(0.0)
        events = self.lineage.delivery
        waits = [(delivery, seconds) for delivery in self.telemetry.deliveries if delivery is not events]
        if events is not None:
            waits.append((events, self.lineage.drain_seconds))
        flush_all(waits)


def is_observed(config: ObservabilityConfig) -> bool:
    """Tell whether a product's configuration names anybody who listens, without opening anything."""
    telemetry = config.telemetry
    traced = telemetry.enabled and telemetry.backend != "none"
    lineage = config.lineage and config.lineage_transport != "noop"
    return traced or bool(
        lineage and (config.lineage_endpoint or config.lineage_transport in ("console", "file"))
    )


def observe(artifact: CompiledArtifacts, index: ProductIndex, product_dir: Path, home: FloeHome) -> Observed:
    """Return what is said of a product in this process.

    Args:
        artifact: Of the product.
        index: Its assets and checks.
        product_dir: Where its sources are edited.
        home: Outboxes lie here.
    """
    slug = index.product.slug
    logging = artifact.observability.telemetry.logging
    configure_product_logger(slug, logging.log_level, as_json=logging.json_output)
    telemetry, lineage = _opened(slug, artifact.observability, home)
    return Observed(
        slug=slug,
        config=artifact.observability,
        index=index,
        telemetry=telemetry,
        lineage=lineage,
        catalog=CatalogNames.of_plugins(artifact.plugins),
        engines=EngineNames.by_engine(artifact, slug),
        product_dir=product_dir,
    )


_lock = threading.Lock()
_open: dict[tuple[str, str, str, int], tuple[Telemetry, LineageEmitter]] = {}


def _opened(slug: str, config: ObservabilityConfig, home: FloeHome) -> tuple[Telemetry, LineageEmitter]:
    key = (slug, config.model_dump_json(), str(home.path), os.getpid())
    with _lock:
        if key not in _open:
            for other in [other for other in _open if other[0] == slug and other[2] == str(home.path)]:
                # The product has another configuration now; what waits for the old receiver goes to the new one.
                _close(*_open.pop(other), seconds=0.0)
            telemetry, lineage = Telemetry(slug, config.telemetry, home), LineageEmitter(slug, config, home)
            if telemetry.enabled and lineage.delivery is not None:
                # The metric of what waits counts it, too.
                telemetry.deliveries.append(lineage.delivery)
            _open[key] = telemetry, lineage
        return _open[key]


def _close(telemetry: Telemetry, lineage: LineageEmitter, *, seconds: float) -> None:
    lineage.drain_seconds = seconds
    # Puts the last spans and points into their outboxes, then closes all deliveries that it knows.
    telemetry.close(seconds)
    lineage.close()


@atexit.register
def _close_all() -> None:
    deadline = time.monotonic() + EXIT_SECONDS
    with _lock:
        for telemetry, lineage in _open.values():
            for delivery in (*telemetry.deliveries, lineage.delivery):
                if delivery is not None:
                    delivery.end_within(EXIT_SECONDS)
        while _open:
            _key, opened = _open.popitem()
            _close(*opened, seconds=max(deadline - time.monotonic(), 0.0))
