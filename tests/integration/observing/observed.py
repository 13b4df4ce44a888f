"""A small product that is observed: a seed, a staging model, a mart, tests and policies; and its runs in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from floe_dagster import load_product_definitions
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.definitions.observing import process
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.observability.outbox import Outbox
from tests.receivers import LineageReceiver, OtlpReceiver, Span, Tree

SECRET = "marker-of-a-secret-5d41402abc"
"""The value of what the manifest refers to as a secret."""
PERSON = "Marker Person-7d793037a076"
"""A value that stands in rows alone."""
SECRET_VARIABLE = "FLOE_TEST_TOKEN"
REPOSITORY = "https://github.com/example/products"

Section = Mapping[str, Any]


def tracing(otlp: OtlpReceiver, protocol: str = "grpc", **settings: Any) -> dict[str, Any]:
    """Return `observability.tracing` for a receiver; it asks for a secret header."""
    endpoint = otlp.grpc_endpoint if protocol == "grpc" else otlp.http_endpoint
    return {
        "exporter": "otlp",
        "endpoint": endpoint,
        "protocol": protocol,
        "headers": {"Authorization": {"env": SECRET_VARIABLE}},
        **settings,
    }


def lineage_to(lineage: LineageReceiver, **settings: Any) -> dict[str, Any]:
    """Return `observability.lineage` for a receiver; it asks for a secret token."""
    return {
        "transport": "http",
        "endpoint": lineage.url,
        "api_key": {"env": SECRET_VARIABLE},
        **settings,
    }


def manifest(tracing: Section | None, lineage: Section | None) -> dict[str, Any]:
    """Return the platform manifest; without a section that part is off."""
    return {
        "apiVersion": "floe.dev/v1",
        "kind": "Manifest",
        "metadata": {"name": "test-platform", "version": "1.0.0", "owner": "platform@example.com"},
        "observability": {
            "tracing": dict(tracing or {"exporter": "none"}),
            "lineage": dict(lineage or {"transport": "noop"}),
            "logging": {"level": "INFO", "format": "text"},
        },
        "governance": {
            "policy_enforcement_level": "warn",
            "naming": {"pattern": "kimball"},
            "quality_gates": {"require_descriptions": True, "minimum_test_coverage": 50},
        },
    }


SCHEMA = """\
models:
  - name: stg_orders
    description: Orders as they come.
    columns:
      - name: order_id
        description: Key of the order.
        data_tests: [unique, not_null]
      - name: customer
        description: Who ordered.
        config: {tags: [pii], meta: {classification: confidential}}
        data_tests:
          - accepted_values:
              arguments: {values: [nobody]}
              config: {severity: warn}
      - {name: amount, description: What was paid.}
  - name: mart_customers
    config: {meta: {owner: sales@example.com}}
    columns:
      - name: customer
        description: Who ordered.
        config: {meta: {classification: confidential}}
        data_tests: [unique]
      - {name: total, description: What was paid in all.}
"""
STAGING = """\
select id as order_id, trim(customer) as customer, cast(amount as decimal(10, 2)) as amount
from {{ ref('raw_orders') }}
"""
MART = "select customer, sum(amount) as total from {{ ref('stg_orders') }} group by customer\n"
SEED = f"id,customer,amount\n1,{PERSON},10.50\n2, Ann ,4\n3,Ben,7.25\n"


def make_product(
    folder: Path, tracing: Section | None, lineage: Section | None, slug: str = "shop", **spec: Any
) -> Path:
    """Write a product beside its manifest.

    Args:
        folder: Of the project.
        tracing: Of the manifest.
        lineage: Of the manifest.
        slug: Of the product.
        spec: More of `floe.yaml`.
    """
    product = folder / slug
    for part in ("models/staging", "models/marts", "seeds"):
        (product / part).mkdir(parents=True)
    (folder / "workspace.yaml").write_text("load_from: []\n")
    name = f"manifest-{slug}.yaml"
    (folder / name).write_text(yaml.safe_dump(manifest(tracing, lineage)))
    document = {
        "apiVersion": "floe.dev/v1",
        "kind": "FloeSpec",
        "metadata": {
            "name": slug,
            "version": "1.2.0",
            "owner": "shop@example.com",
            "description": "A shop.",
            "labels": {"domain": "sales"},
        },
        "repository": REPOSITORY,
        "platform": {"manifest": f"../{name}"},
        "transforms": [{"name": "stg_orders", "tags": ["hourly"]}, {"name": "mart_customers"}],
        **spec,
    }
    (product / "floe.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    (product / "dbt_project.yml").write_text(
        f"name: {slug}\nversion: 1.0.0\nprofile: {slug}\nmodels: {{+materialized: table}}\n"
    )
    (product / "seeds" / "raw_orders.csv").write_text(SEED)
    (product / "models" / "staging" / "stg_orders.sql").write_text(STAGING)
    (product / "models" / "marts" / "mart_customers.sql").write_text(MART)
    (product / "models" / "schema.yml").write_text(SCHEMA)
    return product


@dataclass
class Project:
    """A project whose products run in this process.

    Args:
        folder: Of the project.
        instance: Dagster's.
    """

    folder: Path
    instance: dg.DagsterInstance

    @property
    def home(self) -> FloeHome:
        """Where the products write."""
        return FloeHome(self.folder / ".floe")

    def definitions(self, product: Path) -> dg.Definitions:
        """Compile a product and return what Dagster serves of it."""
        result = compile_product(product, home=self.home)
        assert result.bundle is not None, result.findings
        return build_product_definitions(result.bundle, product_dir=product, home=self.home)

    def run(self, product: Path, **options: Any) -> Any:
        """Compile a product and run it; returns Dagster's result."""
        job = self.definitions(product).resolve_job_def(f"{product.name}_run")
        return job.execute_in_process(instance=self.instance, raise_on_error=False, **options)

    def compile(self, product: Path) -> Any:
        """Run the product's compile job; returns Dagster's result."""
        job = load_product_definitions(product).resolve_job_def(f"{product.name}_compile")
        return job.execute_in_process(instance=self.instance, raise_on_error=False)

    def tags(self, run_id: str) -> Mapping[str, str]:
        """Return the tags of a run."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run.tags

    def snapshot(self, table: str) -> tuple[int, Mapping[str, str], str]:
        """Return id and properties of a table's current snapshot, and the table's location."""
        found = open_catalog(None, None, home=self.home).load_table(table)
        snapshot = found.current_snapshot()
        assert snapshot is not None and snapshot.summary is not None
        properties = {**snapshot.summary.additional_properties}
        return snapshot.snapshot_id, properties, found.location()

    def outbox(self, slug: str, signal: str) -> Outbox:
        """Return where records of one kind wait: traces, metrics or lineage."""
        return Outbox(self.home.outbox_dir(slug, signal))

    def pending(self, slug: str = "shop") -> dict[str, int]:
        """Return how many records of each kind wait."""
        return {signal: self.outbox(slug, signal).pending() for signal in ("traces", "metrics", "lineage")}


@contextmanager
def project(folder: Path) -> Iterator[Project]:
    """Give a project with an instance and a secret in the environment; closes what its products opened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(folder / "dagster"))
        patch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        patch.setenv(SECRET_VARIABLE, SECRET)
        for name in ("FLOE_HOME", "FLOE_MANIFEST", "FLOE_ENVIRONMENT", "KUBERNETES_SERVICE_HOST"):
            patch.delenv(name, raising=False)
        (folder / "dagster").mkdir()
        with dg.DagsterInstance.get() as instance:
            try:
                yield Project(folder, instance)
            finally:
                end_process()


def end_process() -> None:
    """Close telemetry and lineage, as the end of a process does."""
    process._close_all()


def tree_of(otlp: Any, run_id: str, seconds: float = 10) -> Tree:
    """Return the trace that a Dagster run's span is in, as soon as it hangs together.

    Args:
        otlp: A receiver of telemetry.
        run_id: Dagster's.
        seconds: After which what is there is held to be all.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = [
            span
            for span in otlp.spans()
            if span.name.startswith("run ") and span.attributes.get("floe.dagster.run_id") == run_id
        ]
        late = time.monotonic() > deadline
        if found or late:
            assert found, f"no span of run {run_id}: {sorted({span.name for span in otlp.spans()})}"
            try:
                tree: Tree = otlp.tree(found[0].trace_id)
                return tree
            except AssertionError:
                if late:
                    raise
        time.sleep(0.1)


def names_below(tree: Tree, span: Span) -> list[str]:
    """Return the names right under a span."""
    return [child.name for child in tree.children(span)]
