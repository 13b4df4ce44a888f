"""Leases: one writer of a schema at a time, on whatever machine.

A lease stands in the properties of the schema's namespace. Its holder renews it; one that was killed does not, and whoever
waits sees that without comparing clocks. Catalogs do not promise to set a property only where nobody else does, so a lease
keeps runs from disturbing each other, and is never all that a table's safety hangs on (see `iceberg.clones.check_base`).
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from floe_dagster.iceberg.errors import CatalogError, NotUsableError, catalog_error

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

HOLDER = "floe.writer"
"""Namespace property: who writes, for people."""

PLACE = "floe.writer-place"
"""Namespace property: where it writes from; one place has one writer at a time."""

RENEWAL = "floe.writer-renewal"
"""Namespace property: id of the lease, and how often it was renewed."""

RENEW_SECONDS = 15.0
STALE_SECONDS = 75.0
"""A holder that was not heard of for so long is gone; several renewals may fail meanwhile."""

SETTLE_SECONDS = 0.5
"""Two that ask at the same moment look again after so long: the later one has it."""

LOOK_SECONDS = 2.0
ATTEMPTS = 3
WAIT_SECONDS = 1800.0


class LeaseError(CatalogError):
    """Somebody else held the lease all the time."""


@contextmanager
def lease(
    catalog: Catalog,
    namespace: str,
    *,
    holder: str,
    place: str,
    say: Callable[[str], None],
    renew_seconds: float = RENEW_SECONDS,
    stale_seconds: float = STALE_SECONDS,
    wait_seconds: float = WAIT_SECONDS,
) -> Iterator[None]:
    """Be the only one that writes to a namespace.

    A catalog that keeps no properties of namespaces, or forbids them, is written to without a lease; that is said.

    Args:
        catalog: From `open_catalog`.
        namespace: Which exists.
        holder: Who writes, for people who wait; for example a run and its machine.
        place: Where from. What a lease of the same place has left behind is taken over at once.
        say: Is told what is waited for.
        renew_seconds: Between two renewals.
        stale_seconds: After which a holder that renews nothing is gone.
        wait_seconds: So long at most another holder is waited for.

    Raises:
        LeaseError: Another holder was waited for in vain.
        CatalogError: The catalog does not answer.
    """
    own = _Lease(catalog, namespace, holder, place, say)
    try:
        own.take(stale_seconds, wait_seconds)
    except NotUsableError as error:
        say(f"runs on other machines are not waited for: {error}")
        yield
        return
    ended = threading.Event()
    renewing = threading.Thread(
        target=own.renew_until, args=(ended, renew_seconds), name="floe-lease", daemon=True
    )
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join()
        own.give_back()


class _Lease:
    def __init__(
        self, catalog: Catalog, namespace: str, holder: str, place: str, say: Callable[[str], None]
    ) -> None:
        self._catalog = catalog
        self._namespace = namespace
        self._properties = {HOLDER: holder, PLACE: place}
        self._say = say
        self._id = uuid.uuid4().hex
        self._count = 0

    def take(self, stale_seconds: float, wait_seconds: float) -> None:
        begun = heard = time.monotonic()
        last = said = ""
        failures = 0
        while True:
            found = self._found()
            renewal, now = found.get(RENEWAL, ""), time.monotonic()
            if renewal != last:
                last, heard = renewal, now
            is_ours = found.get(PLACE) == self._properties[PLACE]
            if renewal and not is_ours and now - heard <= stale_seconds:
                if now - begun > wait_seconds:
                    raise LeaseError(
                        f"{found.get(HOLDER)} writes {self._namespace} for over {wait_seconds:.0f} seconds; end it, or wait"
                    )
                if said != (said := found.get(HOLDER, "")):
                    self._say(f"waiting for {said}, which writes {self._namespace}")
                time.sleep(min(LOOK_SECONDS, stale_seconds / 4, wait_seconds))
                continue
            if renewal and not is_ours:
                self._say(
                    f"{found.get(HOLDER)} was not heard of for {now - heard:.0f} s: it is taken for killed"
                )
            try:
                self._renew()
            except NotUsableError:
                raise
            except CatalogError:
                # Two that set a property at once may both be refused.
                failures += 1
                if failures == ATTEMPTS:
                    raise
            time.sleep(SETTLE_SECONDS)
            if self._is_held():
                return

    def renew_until(self, ended: threading.Event, seconds: float) -> None:
        while not ended.wait(seconds):
            try:
                if not self._is_held():
                    self._say(
                        f"another run has begun to write {self._namespace}, since this one was not heard of for a while; what "
                        "both write is published by one of them"
                    )
                    return
                self._renew()
            except (
                Exception
            ) as error:  # whoever needs the catalog now says it; the next renewal may get through
                logging.getLogger(__name__).debug("a lease was not renewed: %s", error)

    def give_back(self) -> None:
        try:
            if self._is_held():
                self._catalog.update_namespace_properties(self._namespace, removals={RENEWAL, HOLDER, PLACE})
        except Exception as error:  # the next one finds that it is renewed no more
            self._say(f"the lease on {self._namespace} is left to run out: {error}")

    def _found(self) -> Mapping[str, str]:
        try:
            return self._catalog.load_namespace_properties(self._namespace)
        except Exception as error:
            raise self._explained(error, "read") from error

    def _is_held(self) -> bool:
        return self._found().get(RENEWAL, "").partition(" ")[0] == self._id

    def _renew(self) -> None:
        updates = {**self._properties, RENEWAL: f"{self._id} {self._count}"}
        try:
            self._catalog.update_namespace_properties(self._namespace, updates=updates)
        except Exception as error:
            raise self._explained(error, "set") from error
        self._count += 1

    def _explained(self, error: Exception, done: str) -> Exception:
        what = f"the properties of {self._namespace} could not be {done}"
        if isinstance(error, NotImplementedError):
            return NotUsableError(f"{what}: the catalog keeps none")
        return catalog_error(error, what)
