"""Several publications at once, each by a publisher of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self

from floe_dagster.definitions.workspaces.base import Publisher
from floe_dagster.iceberg.errors import CatalogError, PublicationError

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
