"""Several publications at once, each by a publisher of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

from floe_dagster.execution.workspaces.base import PublicationRequest, Publisher
from floe_dagster.iceberg.errors import CatalogError, PublicationError
from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.publication import PublicationOptions

AT_ONCE = 4
"""Enough to keep disk and network busy: a small table is mostly waiting for the catalog."""


class Publications:
    """Publishes tables in threads.

    Args:
        publisher: Makes another publisher.
        publish: Called with a publisher and the asset.
        at_once: How many run at a time.
    """

    def __init__(
        self,
        publisher: Callable[[], Publisher],
        publish: Callable[[Publisher, Mapping[str, Any]], Any],
        at_once: int = AT_ONCE,
    ) -> None:
        self._publisher = publisher
        self._publish = publish
        self._at_once = at_once
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="floe-table")
        self._running: dict[Future[Any], tuple[str, Publisher]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for future, (_key, publisher) in self._running.items():
                future.cancel()
                publisher.interrupt()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def has_room(self) -> bool:
        """Tell whether another one may begin."""
        return len(self._running) < self._at_once

    def begin(self, key: str, asset: Mapping[str, Any]) -> None:
        """Begin to publish one table."""
        publisher = self._publisher()
        self._running[self._pool.submit(self._publish, publisher, asset)] = (key, publisher)

    def finished(self) -> Iterator[tuple[str, Any]]:
        """Wait for at least one and yield key and result, or the error that its owner has to see.

        Raises:
            Exception: Anything else that a publication raised.
        """
        done, _running = wait(self._running, return_when=FIRST_COMPLETED)
        for future in done:
            key, publisher = self._running.pop(future)
            publisher.close()
            error = future.exception()
            if error is not None and not isinstance(error, PublicationError | CatalogError):
                raise error
            yield key, error or future.result()


def in_graph_order(
    publications: Publications,
    assets: Mapping[str, Mapping[str, Any]],
    todo: list[str],
    refused: dict[str, str],
) -> Iterator[tuple[str, Any]]:
    """Publish several tables at once, each after those that it reads; yield each as it is done.

    A table that reads one that was refused is refused, too.

    Args:
        publications: Takes the tables.
        assets: Of the asset index by unique id.
        todo: Unique ids, each after those that it reads; what is not published itself is yielded with None.
        refused: Why a table is refused, by unique id; who consumes this adds to it.
    """
    pending = list(todo)
    unfinished = set(todo)
    while unfinished:
        for key in list(pending):
            asset = assets[key]
            blocked = next((up for up in asset["deps"] if up in refused), None)
            if blocked:
                refused[key] = f"it reads {assets[blocked]['name']}, which was not published"
                pending.remove(key)
                unfinished.discard(key)
            elif unfinished.isdisjoint(asset["deps"]):
                if not asset["published"]:
                    pending.remove(key)
                    unfinished.discard(key)
                    yield key, None
                elif publications.has_room():
                    pending.remove(key)
                    publications.begin(key, asset)
        for key, published in publications.finished():
            unfinished.discard(key)
            yield key, published


def publication_request(
    asset: Mapping[str, Any], product: Mapping[str, Any], run: Mapping[str, str]
) -> PublicationRequest:
    """Return what is asked for one table.

    Args:
        asset: As in the asset index.
        product: `product` of the asset index.
        run: Snapshot properties that name the run.
    """
    table, lifecycle = asset.get("table") or {}, product.get("lifecycle") or {}
    return PublicationRequest(
        asset,
        product["slug"],
        snapshot_properties={
            **run,
            "floe.product": product["name"],
            "floe.product-version": product["version"],
            "floe.model": asset["name"],
            "floe.engine": asset["engine"],
        },
        column_docs={column["name"]: column["description"] for column in asset["columns"]},
        options=PublicationOptions(
            layout=TableLayout.parse(
                table.get("partition_by"), table.get("sort_by"), table.get("properties")
            ),
            mode=table.get("write_mode") or "overwrite",
            key=tuple(table.get("key") or ()),
            schema_evolution=lifecycle.get("schema_evolution") or "allow",
            recovery=lifecycle.get("stale_table_recovery_mode"),
            product=product["name"],
        ),
    )
