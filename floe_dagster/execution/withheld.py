"""Why tables are not published, over everything that a run builds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from floe_dagster.execution.errors import WithheldError
from floe_dagster.schemas.product_index import Asset


class Withheld:
    """Collects reasons while the engines of a run work one after the other.

    Args:
        assets: Of the index by unique id, each after those that it reads.
    """

    def __init__(self, assets: Mapping[str, Asset]) -> None:
        self._assets = assets
        self._told: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        """By unique id; also of assets that this run was not asked for, and of what reads them."""
        self.try_again = False
        """Whether a retry may help."""

    def add(self, reasons: Mapping[str, str], asked: Collection[str]) -> None:
        """Take reasons.

        Args:
            reasons: By unique id of the asset.
            asked: Unique ids of those whose reason fails the run.
        """
        for key, reason in reasons.items():
            if key not in self._assets:
                continue
            self.reasons.setdefault(key, reason)
            if key in asked:
                self._told[key] = reason

    def from_now_on(self, asked: set[str]) -> set[str]:
        """Return which of `asked` may still be built: those that read nothing which is withheld.

        Args:
            asked: Unique ids of assets.
        """
        for key, asset in self._assets.items():
            blocked = next((up for up in asset.deps if up in self.reasons), None)
            if blocked is not None:
                self.reasons.setdefault(key, f"it reads {self._assets[blocked].name}, which was withheld")
        self._told.update(
            {key: self.reasons[key] for key in self._assets if key in asked & self.reasons.keys()}
        )
        return asked - self.reasons.keys()

    def failure(self) -> WithheldError | None:
        """Return how the run ends where something that it was asked for is withheld."""
        if not self._told:
            return None
        # In the order of the graph: what fails stands before what reads it.
        reasons = {asset.name: self._told[key] for key, asset in self._assets.items() if key in self._told}
        return WithheldError(reasons, transient=self.try_again)
