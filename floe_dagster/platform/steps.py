"""What a bootstrap has done so far, thing by thing; on a dry run, what it would do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """What was done about one thing.

    Args:
        what: For example `bucket floe-warehouse`.
        outcome: `made`, `there`, `changed`, `would make`, `would change` or `skipped`.
        note: More about it.
    """

    what: str
    outcome: str
    note: str = ""


class Steps:
    """Does steps, or says what they would do, and keeps what became of them.

    Args:
        dry_run: Only look.
        say: Called with each step as it is done.
    """

    def __init__(self, *, dry_run: bool, say: Callable[[Step], None]) -> None:
        self.dry_run = dry_run
        self.say = say
        self.taken: list[Step] = []

    def ensure(self, what: str, is_there: bool, make: Callable[[], Any]) -> None:
        """Make a thing that is missing.

        Args:
            what: The thing, for people.
            is_there: Whether it needs no making.
            make: Makes it.
        """
        if is_there:
            self.done(what, "there")
        else:
            self.make(what, make)

    def make(self, what: str, make: Callable[[], Any], *, change: bool = False, note: str = "") -> None:
        """Make or change a thing.

        Args:
            what: The thing, for people.
            make: Does it.
            change: Whether it is there already, and different.
            note: More about it.
        """
        if self.dry_run:
            self.done(what, "would change" if change else "would make", note)
            return
        make()
        self.done(what, "changed" if change else "made", note)

    def done(self, what: str, outcome: str, note: str = "") -> None:
        """Keep what became of a thing; see `Step`."""
        step = Step(what, outcome, note)
        self.taken.append(step)
        self.say(step)
