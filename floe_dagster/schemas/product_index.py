"""What the definitions and the runs of a product need of it, as a compilation wrote it down.

A bundle holds it as JSON (`product_index_json.py`), and every process that loads the product makes thousands of these
objects first of all: hence plain frozen classes, which check nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from floe_dagster.schemas.compute.engine import STATEFUL

Relation = tuple[str, str, str]
"""Database, schema and name of a table or view in its engine."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that the project describes.

    Args:
        name: As the project writes it.
        type: That the project declares, in its engine's words; None where it declares none.
        description: For people; empty where there is none.
        tags: Of the column, in order.
        classification: `meta.classification`, as text.
    """

    name: str
    type: str | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    classification: str | None = None


@dataclass(frozen=True, slots=True)
class TableSettings:
    """What `transforms[].table` asks of a published table; None leaves what the table has.

    Args:
        partition_by: Partition fields, as the product spec writes them; none at all make it unpartitioned.
        sort_by: Sort fields, as the product spec writes them.
        write_mode: append, overwrite or upsert; None where the product states none.
        key: Columns that identify a row.
        properties: Iceberg table properties.
        expire_by: Column with the time of a row, by which it expires.
    """

    partition_by: tuple[str, ...] | None = None
    sort_by: tuple[str, ...] | None = None
    write_mode: str | None = None
    key: tuple[str, ...] | None = None
    properties: Mapping[str, str] | None = None
    expire_by: str | None = None

    @property
    def mode(self) -> str:
        """How rows come into the table: what is stated, else overwrite."""
        return self.write_mode or "overwrite"


NO_SETTINGS = TableSettings()


@dataclass(frozen=True, slots=True)
class Asset:
    """A model, seed or snapshot that is built.

    Args:
        id: dbt's unique id.
        name: Of the node; that of the published table.
        type: model, seed or snapshot.
        materialized: dbt's materialization.
        published: Whether it becomes an Iceberg table.
        engine: Which engine builds it.
        relation: What dbt builds, as its engine calls it.
        deps: Ids of the assets that it reads, in order.
        group: Its tier, seeds, or default.
        description: For people; empty where there is none.
        tags: Of dbt and of `transforms`, in order.
        owners: As Dagster takes them: addresses, or teams.
        file: Path of its SQL or CSV in the project.
        checksum: Beginning of dbt's checksum of that file.
        described: File and line where it is described; None where it is not.
        table: How its table is laid out and written.
        unique_key: Columns by which dbt knows a row of an incremental model.
        batch_size: Of a microbatch model: hour, day, month or year; empty for all others.
        columns: That the project describes.
        relations: Where there are several engines: what each of them calls the relation.
    """

    id: str
    name: str
    type: str
    materialized: str
    published: bool
    engine: str
    relation: Relation
    deps: tuple[str, ...] = ()
    group: str = "default"
    description: str = ""
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    file: str = ""
    checksum: str = ""
    described: tuple[str, int] | None = None
    table: TableSettings = NO_SETTINGS
    unique_key: tuple[str, ...] = ()
    batch_size: str = ""
    columns: tuple[Column, ...] = ()
    relations: Mapping[str, Relation] = field(default_factory=dict)

    @property
    def is_stateful(self) -> bool:
        """Whether its next content depends on its last one."""
        return self.materialized in STATEFUL

    @property
    def is_view(self) -> bool:
        """Whether dbt builds a view, which holds no rows of its own."""
        return self.materialized == "view"

    @property
    def full_relation(self) -> str:
        """What dbt builds, in one word: `database.schema.name`."""
        return ".".join(self.relation)

    @property
    def place(self) -> tuple[str, str]:
        """Schema and name of what dbt builds, in lower case."""
        _database, schema, name = self.relation
        return schema.lower(), name.lower()

    def identifier(self, namespace: str) -> tuple[str, str]:
        """Return what its published table is called in the catalog.

        Args:
            namespace: Of the product: its slug.
        """
        return namespace, self.name

    def is_foreign(self, engine: str) -> bool:
        """Tell whether another engine than `engine` builds it."""
        return self.engine != engine

    def seen_by(self, engine: str) -> Asset:
        """Return it as an engine knows it: what another one builds, under the name that it gives the table.

        Args:
            engine: Its name.
        """
        if not self.is_foreign(engine):
            return self
        return replace(self, relation=self.relations.get(engine, self.relation))


@dataclass(frozen=True, slots=True)
class Check:
    """A data test or unit test of dbt that concerns an asset.

    Args:
        id: dbt's unique id.
        name: Of Dagster's check: letters, digits and `_`.
        asset: Id of the asset that it is shown with.
        reads: Ids of the assets that it reads.
        withholds: Ids of the assets that are not published where it fails.
        type: data_test or unit_test.
        severity: error or warn.
        may_warn: Whether it may come to no more than a warning, as it was compiled.
        kind: Name of the generic test, such as unique; None of others.
        column: That it looks at.
        description: For people.
        file: That defines it.
    """

    id: str
    name: str
    asset: str
    reads: tuple[str, ...]
    withholds: tuple[str, ...]
    type: str = "data_test"
    severity: str = "error"
    may_warn: bool = True
    kind: str | None = None
    column: str | None = None
    description: str = ""
    file: str | None = None

    @property
    def is_error(self) -> bool:
        """Whether a failure withholds tables; a warning is only told."""
        return self.severity == "error"

    @property
    def is_unit_test(self) -> bool:
        """Whether it tests a model's SQL on rows that the test brings along."""
        return self.type == "unit_test"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the product runs by itself.

    Args:
        cron: Cron expression.
        timezone: Its IANA time zone.
        enabled: Whether it is started.
    """

    cron: str
    timezone: str = "UTC"
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old published data may become.

    Args:
        fail_seconds: Age that fails.
        warn_seconds: Age that warns; None where none does.
    """

    fail_seconds: int
    warn_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What governs the life of the tables; None where nobody states it.

    Args:
        schema_evolution: allow or forbid.
        stale_table_recovery_mode: What is done of a table that the catalog does not find.
        data_retention_days: Rows and snapshots are kept so long at least.
        default_ttl_hours: Rows expire after so long.
        snapshot_keep_last: So many snapshots are kept at least.
    """

    schema_evolution: str | None = None
    stale_table_recovery_mode: str | None = None
    data_retention_days: int | None = None
    default_ttl_hours: int | None = None
    snapshot_keep_last: int | None = None


@dataclass(frozen=True, slots=True)
class ColumnRules:
    """What built columns have to be; each level is off, warn or strict.

    Args:
        descriptions: Level at which a column without a description is found.
        personal_data: Level at which one named like personal data without a classification is found.
        types: Level at which one of another type than declared is found.
        personal_names: Names of personal data that the platform adds.
        exempt: Names that the platform exempts, each with the last day of that.
    """

    descriptions: str = "off"
    personal_data: str = "off"
    types: str = "off"
    personal_names: tuple[str, ...] = ()
    exempt: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProductFacts:
    """What concerns the whole product.

    Args:
        slug: Namespace of its tables.
        name: As its spec has it.
        version: Semantic version.
        owner: Who answers for it.
        description: What it is for.
        labels: Free ones.
        schedule: When it runs by itself; None where it does not.
        freshness: How old its data may become; None where nobody says.
        resources: Requests and limits of its pods, as Kubernetes takes them.
        preset: Name of the preset that they come from.
        repository: Address of its source repository.
        lifecycle: What governs the life of its tables.
        audited: What is done to it goes into the audit log.
        columns: What built columns have to be.
    """

    slug: str
    name: str
    version: str
    owner: str
    description: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    schedule: Schedule | None = None
    freshness: Freshness | None = None
    resources: Mapping[str, Any] | None = None
    preset: str | None = None
    repository: str | None = None
    lifecycle: Lifecycle = Lifecycle()
    audited: bool = False
    columns: ColumnRules = ColumnRules()


@dataclass(frozen=True, slots=True)
class ProductIndex:
    """Assets and checks of a product, and what concerns all of it.

    Args:
        product: What concerns all of it.
        assets: In the order of dbt's ids.
        checks: In the order of dbt's ids.
        functions: dbt's unique ids of the functions that it creates in the engine.
    """

    product: ProductFacts
    assets: tuple[Asset, ...] = ()
    checks: tuple[Check, ...] = ()
    functions: tuple[str, ...] = ()

    def in_order(self) -> list[Asset]:
        """Return the assets so that each comes after those that it reads."""
        from graphlib import TopologicalSorter

        assets = self.assets_by_id()
        order = TopologicalSorter({key: asset.deps for key, asset in assets.items()}).static_order()
        return [assets[key] for key in order]

    def assets_by_id(self) -> dict[str, Asset]:
        """Return the assets by dbt's unique id."""
        return {asset.id: asset for asset in self.assets}

    def checks_by_id(self) -> dict[str, Check]:
        """Return the checks by dbt's unique id."""
        return {check.id: check for check in self.checks}
