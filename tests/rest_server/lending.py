"""A catalog and a store together, and the ways in which servers give out keys."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
from pyiceberg.catalog import Catalog

from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.publication import PublicationOptions, PublicationResult, publish_relation
from floe_dagster.iceberg.relation import RelationName
from floe_dagster.schemas.artifacts import PluginRef
from tests.rest_server.catalog import CatalogContract, Given, catalog_contract
from tests.rest_server.store import BUCKET, Store

NAMESPACE = "shop"
STATIC_KEY, STATIC_HUSH = "STATICKEYOFTHEMANIFEST", "what-the-manifest-refers-to"
CLIENT = ("floe-etl", "client-secret-of-the-principal")
ENVIRONMENT = {"STORAGE_SECRET": STATIC_HUSH, "CATALOG_SECRET": CLIENT[1]}

Way = Callable[["Lending", str], Given]
"""Says what an answer holds, for the location of a table."""


@dataclass
class Lending:
    """Catalog and store, and what the manifest says of them."""

    store: Store
    catalog: CatalogContract
    bucket: str
    ways: dict[str, Way]
    """By table; that of `*` for all others."""
    lent: list[str] = field(default_factory=list)
    """Secrets that were made for somebody."""

    def lend(self, *prefixes: str) -> dict[str, str]:
        """Return new keys for what lies under some prefixes."""
        keys = self.store.lend(*prefixes)
        self.lent += keys.values()
        return keys

    def given(self, table: str, location: str) -> Given:
        """Return what an answer says of keys."""
        return self.ways.get(table, self.ways["*"])(self, location)

    def plugins(self, **catalog: Any) -> dict[str, PluginRef]:
        """Return catalog and storage as the shipped manifest has them, static keys included.

        Args:
            catalog: More settings of the catalog.
        """
        config = {
            "uri": self.catalog.url,
            "warehouse": "floe",
            "oauth2": {"client_id": CLIENT[0], "client_secret": {"env": "CATALOG_SECRET"}},
            **catalog,
        }
        storage = {
            "endpoint": self.store.endpoint,
            "bucket": self.bucket,
            "path_style_access": True,
            "access_key_id": STATIC_KEY,
            "secret_access_key": {"env": "STORAGE_SECRET"},
        }
        return {
            "catalog": PluginRef(type="polaris", config=config),
            "storage": PluginRef(type="minio", config=storage),
        }

    def open(self, home: FloeHome, environ: Mapping[str, str] = ENVIRONMENT, **catalog: Any) -> Catalog:
        """Open the catalog as a run does."""
        return open_catalog(**self.plugins(**catalog), home=home, environ=environ)

    def publish(
        self, catalog: Catalog, home: FloeHome, sql: str, table: str = "orders", **options: Any
    ) -> PublicationResult:
        """Publish the rows of a query."""
        with duckdb.connect() as con:
            con.execute(f"create table t as {sql}").fetchall()
            return publish_relation(
                con,
                RelationName("memory", "main", "t"),
                catalog=catalog,
                namespace=NAMESPACE,
                table=table,
                snapshot_properties={"floe.product": NAMESPACE},
                options=PublicationOptions(product=NAMESPACE, scratch=home.path / "scratch", **options),
            )


@contextlib.contextmanager
def lending(folder: Path, store: Store, bucket: str = BUCKET) -> Iterator[Lending]:
    """Serve a catalog over a store; every table's keys are given as Polaris gives them."""
    made: list[Lending] = []
    warehouse = f"s3://{bucket}/warehouse"
    with catalog_contract(
        folder, store, warehouse, CLIENT, lambda table, location: made[0].given(table, location)
    ) as contract:
        made.append(Lending(store, contract, bucket, {"*": as_polaris}))
        yield made[0]


def as_polaris(lending: Lending, location: str) -> Given:
    """Keys in both places, and beside them what Polaris 1.4.1 says of the store.

    Seen in its IcebergCatalogHandler (one credential, whose prefix is the table's location without a slash, and the same keys in
    `config`) and in its AwsCredentialsStorageIntegration (names).
    """
    keys = lending.lend(location)
    expires = str(int(time.time() * 1000) + 3_600_000)
    keys |= {"s3.session-token-expires-at-ms": expires, "expiration-time": expires}
    more = {
        "client.region": "us-east-1",
        "s3.endpoint": lending.store.endpoint,
        "s3.path-style-access": "true",
        "client.refresh-credentials-endpoint": "v1/floe/namespaces/shop/tables/orders/credentials",
    }
    return Given({**keys, **more}, ((location, keys),))


def in_credentials(lending: Lending, location: str) -> Given:
    """Keys in `storage-credentials` alone."""
    return Given({}, ((location, lending.lend(location)),))


def in_config(lending: Lending, location: str) -> Given:
    """Keys in `config` alone, as servers give them that are older than `storage-credentials`."""
    return Given(lending.lend(location))


def with_a_slash(lending: Lending, location: str) -> Given:
    """The prefix is that of a folder."""
    return Given({}, ((f"{location}/", lending.lend(location)),))


def longest_of_several(lending: Lending, location: str) -> Given:
    """Keys that reach nothing here stand before and after the right ones; the longest prefix is the right one."""
    elsewhere = "s3://another-bucket/warehouse"
    parent = location.rpartition("/")[0]
    return Given(
        lending.lend(elsewhere),
        (
            ("s3", lending.lend(elsewhere)),
            (parent, lending.lend(elsewhere)),
            (location, lending.lend(location)),
            (f"{parent}/another-table-with-a-long-name", lending.lend(elsewhere)),
            ("gs://", {"gcs.oauth2.token": "lent-token-of-another-cloud"}),
        ),
    )


def data_and_metadata_apart(lending: Lending, location: str) -> Given:
    """Nothing is for the table's own location: data files and metadata have keys of their own."""
    return Given(
        {},
        tuple((f"{location}/{part}", lending.lend(f"{location}/{part}")) for part in ("data", "metadata")),
    )


def nothing(lending: Lending, location: str) -> Given:
    """No keys for this table."""
    return Given()


WAYS: tuple[Way, ...] = (
    as_polaris,
    in_credentials,
    in_config,
    with_a_slash,
    longest_of_several,
    data_and_metadata_apart,
)
