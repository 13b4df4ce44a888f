"""One run of a product: write with dbt, audit, publish to Iceberg, only then record."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.profiles import TARGET, duckdb_file, write_profiles
from floe_dagster.definitions.audit import Audit, audit, in_order
from floe_dagster.definitions.cache import DuckDBCache
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.errors import PublicationError
from floe_dagster.iceberg.publication import PublicationResult, RelationName, find_snapshot, publish_relation

LOCK_TIMEOUT_SECONDS = 1800.0
PROGRESS_EVENTS = frozenset(
    {
        "LogStartLine",
        "LogModelResult",
        "LogTestResult",
        "LogSeedResult",
        "LogSnapshotResult",
        "LogNodeResult",
        "MainEncounteredError",
        "RunResultError",
        "RunResultFailure",
    }
)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a person asked of the run.

    Args:
        full_refresh: Rebuild incremental models and seeds from nothing.
        vars: dbt variables.
    """

    full_refresh: bool = False
    vars: Mapping[str, Any] = field(default_factory=dict)


class ProductRun:
    """Executes the selected assets and checks of one product in one step."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        bundle: Bundle,
        index: Mapping[str, Any],
        specs: Mapping[str, dg.AssetSpec],
        checks: Mapping[str, dg.AssetCheckSpec],
        home: FloeHome,
        dbt: DbtCliResource,
        options: RunOptions,
    ) -> None:
        self.context = context
        self.bundle = bundle
        self.index = index
        self.assets = in_order(index)
        self.specs = specs
        self.checks = checks
        self.home = home
        self.dbt = dbt
        self.options = options
        self.slug = index["product"]["slug"]
        self.artifact = bundle.artifact()
        self.file = duckdb_file(self.artifact.dbt_profiles or {}, self.slug, home)
        self.cache = DuckDBCache(self.file)

    def execute(self) -> Iterator[Any]:
        """Yield materializations of what was published and results of what was checked.

        Raises:
            dg.Failure: A model or an error test failed, or a table cannot be published; not retried.
        """
        selected = self.context.selected_asset_keys
        wanted = {key for key, spec in self.specs.items() if spec.key in selected}
        plugins = self.artifact.plugins
        catalog = open_catalog(
            plugins.catalog if plugins else None, plugins.storage if plugins else None, home=self.home
        )
        wanted -= self._already_published(catalog, wanted)
        with self._writer_lock():
            extra = self.cache.missing(self.assets, wanted)
            if extra:
                names = sorted(self._asset(key)["name"] for key in extra)
                self.context.log.info(f"not in the DuckDB file, so built as well: {', '.join(names)}")
            to_build = wanted | extra
            if not self.options.full_refresh:
                building = [asset for asset in self.assets if asset["id"] in to_build]
                self.cache.restore(building, catalog, self.slug, self.context.log)
            outcome = audit(self.index, self._run_dbt(to_build), to_build)
            yield from self._publish(catalog, outcome, wanted)

    def _asset(self, key: str) -> dict[str, Any]:
        return next(asset for asset in self.assets if asset["id"] == key)

    def _already_published(self, catalog: Any, wanted: set[str]) -> set[str]:
        """Return what an earlier attempt of the same run, or a run resumed from failure, has published."""
        run = self.context.run
        resumed = run.tags.get("dagster/is_resume_retry") == "true"
        if self.context.retry_number == 0 and not resumed:
            return set()
        mark = self._run_mark()
        done = set()
        for key in wanted:
            asset = self._asset(key)
            identifier = (self.slug, asset["name"])
            if not asset["published"] or not catalog.table_exists(identifier):
                continue
            if find_snapshot(catalog.load_table(identifier), mark) is not None:
                done.add(key)
        if done:
            names = sorted(self._asset(key)["name"] for key in done)
            self.context.log.info(f"published by an earlier attempt, so left alone: {', '.join(names)}")
        return done

    def _run_mark(self) -> dict[str, str]:
        run = self.context.run
        return {
            "floe.run-group": run.root_run_id or run.run_id,
            "floe.source-digest": self.bundle.digest,
        }

    @contextmanager
    def _writer_lock(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self.home.locks_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.home.locks_dir / f"duckdb-{self.slug}.lock")
        begun = time.monotonic()
        while True:
            try:
                lock.acquire(timeout=10)
                break
            except Timeout:
                waited = time.monotonic() - begun
                if waited > LOCK_TIMEOUT_SECONDS:
                    raise dg.Failure(
                        f"another process writes {self.file.name} for over {waited:.0f} seconds; end it, or wait",
                        allow_retries=True,
                    ) from None
                self.context.log.info(f"waiting for another writer of {self.file.name} ({waited:.0f} s)")
        try:
            yield
        finally:
            lock.release()

    def _run_dbt(self, to_build: set[str]) -> dict[str, Any] | None:
        if not to_build:
            return {"results": []}
        unpacked = self.bundle.unpack(self.home)
        profiles_dir = write_profiles(
            self.artifact.dbt_profiles or {}, self.home.profiles_dir(self.slug), self.home
        )
        target = self.home.dbt_target_dir(self.slug)
        (target / "run_results.json").unlink(missing_ok=True)
        dbt = DbtCliResource(
            project_dir=str(unpacked.project_dir),
            profiles_dir=str(profiles_dir),
            profile=self.slug,
            target=TARGET,
            dbt_executable=self.dbt.dbt_executable,
            global_config_flags=["--no-send-anonymous-usage-stats", "--no-version-check"],
        )
        arguments = ["build", *self._selection(to_build), "--log-path", str(self.home.logs_dir(self.slug))]
        if self.options.full_refresh:
            arguments.append("--full-refresh")
        if self.options.vars:
            arguments += ["--vars", json.dumps(dict(self.options.vars))]
        invocation = dbt.cli(
            arguments, raise_on_error=False, manifest=unpacked.manifest_path, target_path=target
        )
        for event in invocation.stream_raw_events():
            info = event.raw_event.get("info", {})
            if info.get("name") in PROGRESS_EVENTS and info.get("msg"):
                self.context.log.info(str(info["msg"]))
            elif info.get("level") == "error":
                self.context.log.error(str(info.get("msg")))
        results = target / "run_results.json"
        if not results.exists():
            raise dg.Failure(
                "dbt ended before it ran a model; its errors are in this run's log", allow_retries=False
            )
        loaded: dict[str, Any] = json.loads(results.read_bytes())
        return loaded

    def _selection(self, to_build: set[str]) -> list[str]:
        if len(to_build) == len(self.assets):
            return []
        names = [f"fqn:{asset['fqn']}" for asset in self.assets if asset["id"] in to_build]
        # Tests that read a model outside of the selection would judge what this run does not change.
        return ["--indirect-selection", "cautious", "--select", " ".join(names)]

    def _publish(self, catalog: Any, outcome: Audit, wanted: set[str]) -> Iterator[Any]:
        import duckdb

        refused: dict[str, str] = {}
        published: dict[str, int | None] = {
            self._asset(key)["name"]: None for key in outcome.withheld if key in self.specs
        }
        with duckdb.connect(str(self.file), read_only=True) as con:
            for asset in self.assets:
                key = asset["id"]
                if key not in outcome.clean or key not in wanted:
                    continue
                blocked = next((up for up in asset["deps"] if up in refused), None)
                if blocked:
                    refused[key] = f"it reads {self._asset(blocked)['name']}, which was not published"
                    continue
                metadata: dict[str, Any] = {"dbt/seconds": outcome.built[key].get("execution_time")}
                if asset["published"]:
                    try:
                        result = self._publish_one(con, catalog, asset)
                    except PublicationError as error:
                        refused[key] = str(error)
                        continue
                    published[asset["name"]] = result.snapshot_id
                    metadata |= publication_metadata(result, asset)
                    self.context.log.info(
                        f"published {result.table}: {result.rows:,} rows, snapshot {result.snapshot_id}, "
                        f"{result.seconds:.2f} s"
                    )
                yield dg.MaterializeResult(asset_key=self.specs[key].key, metadata=metadata)
        self.cache.remember(published)
        yield from self._check_results(outcome)
        self._fail_where_needed(outcome, refused, wanted)

    def _publish_one(self, con: Any, catalog: Any, asset: Mapping[str, Any]) -> PublicationResult:
        product = self.index["product"]
        return publish_relation(
            con,
            RelationName(*asset["relation"]),
            catalog=catalog,
            namespace=self.slug,
            table=asset["name"],
            snapshot_properties={
                **self._run_mark(),
                "floe.product": product["name"],
                "floe.product-version": product["version"],
                "floe.model": asset["name"],
                "floe.dagster-run-id": self.context.run.run_id,
            },
            column_docs={column["name"]: column["description"] for column in asset["columns"]},
        )

    def _check_results(self, outcome: Audit) -> Iterator[dg.AssetCheckResult]:
        selected = self.context.selected_asset_check_keys
        severities = {check["id"]: check for check in self.index["checks"]}
        for key, result in outcome.tests.items():
            spec = self.checks[key]
            if spec.key not in selected or result["status"] == "skipped":
                continue
            check = severities[key]
            failures = result.get("failures")
            metadata: dict[str, Any] = {"status": result["status"], "file": check["file"] or ""}
            if failures is not None:
                metadata["failed_rows"] = failures
            if result.get("message"):
                metadata["message"] = str(result["message"])
            severity = (
                dg.AssetCheckSeverity.WARN if result["status"] == "warn" else dg.AssetCheckSeverity.ERROR
            )
            yield dg.AssetCheckResult(
                passed=result["status"] == "pass",
                asset_key=spec.asset_key,
                check_name=spec.name,
                severity=severity,
                metadata=metadata,
            )

    def _fail_where_needed(self, outcome: Audit, refused: Mapping[str, str], wanted: set[str]) -> None:
        reasons = {
            self._asset(key)["name"]: reason
            for key, reason in {**outcome.withheld, **refused}.items()
            if key in self.specs and (key in wanted or key in outcome.built)
        }
        if not reasons:
            return
        lines = [f"- {name}: {reason}" for name, reason in reasons.items()]
        raise dg.Failure(
            "not published, their last snapshots stand:\n" + "\n".join(lines),
            metadata={"withheld": dg.MetadataValue.json(reasons)},
            allow_retries=False,
        )


def publication_metadata(result: PublicationResult, asset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a published table, under the names that Dagster's UI knows."""
    described = {column["name"]: column for column in asset["columns"]}
    return {
        "dagster/row_count": result.rows,
        "dagster/table_name": result.table,
        "dagster/uri": result.location,
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    name=name, type=kind, description=(described.get(name) or {}).get("description") or None
                )
                for name, kind in result.columns
            ]
        ),
        "iceberg/snapshot_id": str(result.snapshot_id),
        "iceberg/bytes": result.bytes,
        "iceberg/files": result.files,
        "iceberg/schema_changes": ", ".join(result.evolved) or "none",
        "publication/seconds": round(result.seconds, 3),
    }
