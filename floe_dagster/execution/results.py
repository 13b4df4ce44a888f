"""What a run yields while it goes on, one result after the other, each when it is certain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from floe_dagster.iceberg.publication import PublicationResult


@dataclass(frozen=True, slots=True)
class Link:
    """A fact that leads to a page.

    Args:
        url: Of the page.
    """

    url: str


@dataclass(frozen=True, slots=True)
class RelationDescription:
    """A relation as it stands where dbt has built it.

    Args:
        name: Database, schema and name, with dots between.
        columns: Name and type of each, in the order of the relation; none where the engine does not say.
        seconds: How long dbt took to build it; None where dbt does not say.
        rows: How many there are; None where nobody counted: of a view, and of what its publication counts.
        lineage: By column: the assets and columns that it is computed from; None where that is not known.
        facts: What the engine says of the query that built it, by name as in the asset's metadata.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    seconds: float | None = None
    rows: int | None = None
    lineage: Mapping[str, Sequence[tuple[str, str]]] | None = None
    facts: Mapping[str, str | int | float | Link] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Built:
    """An asset that was built and passed its tests; it is not published itself.

    Args:
        asset: dbt's unique id.
        dbt_result: dbt's result of building it.
        description: Of its relation; None where it could not be described.
    """

    asset: str
    dbt_result: Mapping[str, Any]
    description: RelationDescription | None

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Name and type of each column."""
        return self.description.columns if self.description else ()


@dataclass(frozen=True, slots=True)
class Published(Built):
    """An asset that was built, passed its tests, and is published.

    Args:
        publication: Its commit.
    """

    publication: PublicationResult

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """Name and type of each column of the published table."""
        return tuple(self.publication.columns)


@dataclass(frozen=True, slots=True)
class CarriedOver:
    """An asset that an earlier attempt of the run has published.

    Args:
        asset: dbt's unique id.
        table: Name, with its namespace.
        location: Where it lies.
        snapshot_id: Which snapshot the earlier attempt has committed.
        rows: How many it holds; None where the snapshot does not say.
    """

    asset: str
    table: str
    location: str
    snapshot_id: int
    rows: int | None


@dataclass(frozen=True, slots=True)
class Checked:
    """A test that has a result.

    Args:
        test: dbt's unique id.
        dbt_result: dbt's result of it.
    """

    test: str
    dbt_result: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CheckedEarlier:
    """A test whose result an earlier attempt of the run has recorded.

    Args:
        test: dbt's unique id.
    """

    test: str


Result = Built | Published | CarriedOver | Checked | CheckedEarlier
