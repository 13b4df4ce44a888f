"""Leases: one writer of a schema at a time, on whatever machine.

A lease stands in the properties of the schema's namespace. Its holder renews it; one that was killed does not, and whoever
waits sees that without comparing clocks. Catalogs do not promise to set a property only where nobody else does, so a lease
keeps runs from disturbing each other; what is published is looked at besides (see `iceberg.clones.check_base`).
"""

from __future__ import annotations

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
AGAIN_SECONDS = 2.0
"""Between two renewals where the first one failed."""

STALE_SECONDS = 180.0
"""A holder that was not heard of for so long is gone; it may wait twice for an answer that does not come."""

SETTLE_SECONDS = 0.5
"""Two that ask at the same moment look again after so long: the later one has it."""

LOOK_SECONDS = 2.0
WAIT_SECONDS = 1800.0
PATIENCE_SECONDS = 10.0
"""So long a catalog that does not answer is asked again, where nobody is waited for yet."""

END_SECONDS = 5.0
"""So long the end of a run waits for a renewal that is under way."""


class LeaseError(CatalogError):
    """Somebody else held the lease all the time, or has taken it over."""


class Lease:
    """The right to write a namespace, as its holder sees it."""

    def check(self) -> None:
        """Look whether it is still held.

        Raises:
            LeaseError: Somebody else has taken it over.
            CatalogError: The catalog does not answer.
        """


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
) -> Iterator[Lease]:
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
    own = _Held(catalog, namespace, holder, place, say)
    ended = threading.Event()
    renewing = threading.Thread(
        target=own.renew_until, args=(ended, renew_seconds), name="floe-lease", daemon=True
    )
    try:
        refused = own.take(stale_seconds, wait_seconds)
        if not refused:
            renewing.start()
        yield Lease() if refused else own
    finally:
        ended.set()
        if renewing.is_alive():
            renewing.join(END_SECONDS)
        # Where the catalog does not answer, the end of a run must not wait for it.
        if not renewing.is_alive():
            own.give_back()


class _Held(Lease):
    def __init__(
        self, catalog: Catalog, namespace: str, holder: str, place: str, say: Callable[[str], None]
    ) -> None:
        self._catalog = catalog
        self._namespace = namespace
        self._properties = {HOLDER: holder, PLACE: place}
        self._say = say
        self._id = uuid.uuid4().hex
        self._count = 0
        """Of renewals that were sent."""

    def take(self, stale_seconds: float, wait_seconds: float) -> bool:
        """Return once it is held; tells whether the catalog has refused to keep it."""
        begun = time.monotonic()
        silence = _Silence(stale_seconds)
        said = ""
        while True:
            try:
                found = silence.look(self._found)
                holder, renewal = found.get(HOLDER, ""), found.get(RENEWAL, "")
                is_other_s = bool(renewal) and found.get(PLACE) != self._properties[PLACE]
                if is_other_s and not silence.is_over(renewal):
                    self._check_patience(begun, wait_seconds, holder)
                    if said != (said := holder):
                        self._say(f"waiting for {holder}, which writes {self._namespace}")
                    time.sleep(min(LOOK_SECONDS, stale_seconds / 4, wait_seconds))
                    continue
                if is_other_s:
                    self._say(f"{holder} was not heard of for {stale_seconds:.0f} s: it is taken for killed")
                self._renew()
                time.sleep(SETTLE_SECONDS)
                if self._is_held():
                    return False
            except NotKeptError as error:
                self._count = 0
                self._say(f"runs on other machines are not waited for: {error}")
                return True
            except NotUsableError:
                raise
            except CatalogError:
                # A catalog that restarts, or two that set a property at once and are both refused.
                if time.monotonic() - begun > min(wait_seconds, PATIENCE_SECONDS) and not said:
                    raise
                self._check_patience(begun, wait_seconds, said)
                time.sleep(LOOK_SECONDS)

    def _check_patience(self, begun: float, wait_seconds: float, holder: str) -> None:
        if time.monotonic() - begun > wait_seconds:
            raise LeaseError(
                f"{holder} writes {self._namespace} for over {wait_seconds:.0f} seconds; end it, or wait"
            )

    def check(self) -> None:
        """See `Lease`."""
        found = self._found()
        if found.get(RENEWAL) and not self._is_own(found):
            raise LeaseError(
                f"{found.get(HOLDER)} has begun to write {self._namespace}, since this run was not heard of for a while: nothing "
                "more of this run is published"
            )

    def renew_until(self, ended: threading.Event, seconds: float) -> None:
        """Renew it until it ends, or somebody else has it."""
        pause, is_told = seconds, False
        while not ended.wait(pause):
            try:
                self.check()
                self._renew()
                pause, is_told = seconds, False
            except LeaseError as error:
                self._say(str(error))
                return
            except Exception as error:
                # Whoever needs the catalog now says it; the next renewal may get through.
                pause = min(AGAIN_SECONDS, seconds)
                if not is_told:
                    self._say(f"the lease on {self._namespace} was not renewed, and is tried again: {error}")
                is_told = True

    def give_back(self) -> None:
        """Let the next one in at once; what fails here, it finds out by waiting."""
        if not self._count:
            return
        try:
            if self._is_held():
                self._catalog.update_namespace_properties(self._namespace, removals={RENEWAL, HOLDER, PLACE})
        except Exception as error:  # the run's own end says more
            self._say(f"the lease on {self._namespace} is left to run out: {error}")

    def _found(self) -> Mapping[str, str]:
        try:
            return self._catalog.load_namespace_properties(self._namespace)
        except Exception as error:
            what = f"the properties of {self._namespace} could not be read"
            raise catalog_error(error, what) from error

    def _is_held(self) -> bool:
        return self._is_own(self._found())

    def _is_own(self, found: Mapping[str, str]) -> bool:
        return found.get(RENEWAL, "").partition(" ")[0] == self._id

    def _renew(self) -> None:
        # Counted before it is sent: what arrives is another value, even where its answer is lost.
        self._count += 1
        updates = {**self._properties, RENEWAL: f"{self._id} {self._count}"}
        try:
            self._catalog.update_namespace_properties(self._namespace, updates=updates)
        except Exception as error:
            what = f"the properties of {self._namespace} could not be set"
            if _is_refused(error):
                said = str(error).strip() or "it keeps none"
                raise NotKeptError(f"{what}: {said}") from error
            raise catalog_error(error, what) from error


class NotKeptError(CatalogError):
    """The catalog keeps no properties of namespaces, or not for us."""


def _is_refused(error: Exception) -> bool:
    from pyiceberg import exceptions as iceberg

    if isinstance(error, NotImplementedError | iceberg.ForbiddenError | iceberg.BadRequestError):
        return True
    # PyIceberg has no name of its own for most answers.
    answer = getattr(error.__cause__, "response", None)
    return getattr(answer, "status_code", None) in (404, 405, 406, 422)


class _Silence:
    """How long a holder has been silent, as far as whoever waits has listened."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last = ""
        self._heard = self._looked = time.monotonic()

    def look(self, found: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
        """Return what is found; time in which the catalog was silent for all is not the holder's."""
        before = self._looked
        properties = found()
        self._looked = time.monotonic()
        if self._looked - before > self._seconds / 4 + LOOK_SECONDS:
            self._heard = self._looked
        return properties

    def is_over(self, renewal: str) -> bool:
        """Tell whether a holder has shown the same renewal for so long that it is gone."""
        if renewal != self._last:
            self._last, self._heard = renewal, self._looked
        return self._looked - self._heard > self._seconds
