"""One run of a product: write with dbt, audit, publish to Iceberg, only then record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.definitions.audit import Audit, audit, in_order
from floe_dagster.definitions.dbt_build import DbtBuild, RunOptions
from floe_dagster.definitions.garbage import standing_objects_left_alone
from floe_dagster.definitions.observing.build import ObservedBuild
from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.definitions.progress import ProgressLog
from floe_dagster.definitions.publications import Publications
from floe_dagster.definitions.resources import CatalogResource, StorageResource
from floe_dagster.definitions.resume import Earlier, earlier_attempts, is_resumed, recorded_checks, run_mark
from floe_dagster.definitions.run_metadata import publication_metadata
from floe_dagster.definitions.workspaces import open_workspace
from floe_dagster.definitions.workspaces.base import BuiltRelations, PublicationRequest, Publisher
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import request_counts
from floe_dagster.iceberg.errors import (
    CatalogError,
    NotUsableError,
    PublicationError,
    catalog_error,
    is_remote_failure,
)
from floe_dagster.iceberg.layout import TableLayout
from floe_dagster.iceberg.publication import PublicationOptions, PublicationResult

GIVE_UP_AFTER = 3
"""So many tables that the catalog or the storage does not take mean that it is away altogether."""


class ProductRun:
    """Executes the selected assets and checks of one product in one step.

    Args:
        context: Of the step.
        bundle: What was compiled; its sources run.
        index: The bundle's asset index.
        specs: Asset specs by dbt's unique id.
        checks: Check specs by dbt's unique id.
        home: The writable folder.
        dbt: Says which dbt executable runs.
        options: What a person asked of the run.
        catalog: Where tables are registered.
        storage: Where their files lie.
        observed: Who is told of it.
    """

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
        catalog: CatalogResource,
        storage: StorageResource,
        observed: Observed,
    ) -> None:
        self.context = context
        self.bundle = bundle
        self.index = index
        self.assets = {asset["id"]: asset for asset in in_order(index)}
        self.tests = {check["id"]: check for check in index["checks"]}
        self.specs = specs
        self.checks = checks
        self.home = home
        self.options = options
        self.slug = index["product"]["slug"]
        self.artifact = bundle.artifact()
        self.workspace = open_workspace(
            self.slug, self.artifact, bundle, self.assets, home, context.log, run_id=context.run.run_id
        )
        self.build = DbtBuild(context, bundle, home, dbt, options, self.workspace)
        self.mark = run_mark(context, bundle.digest)
        self.progress = ProgressLog(context.log)
        self.catalog = catalog
        self.storage = storage
        self.step = ObservedStep(observed, context)
        self.seen = ObservedBuild(self.step, index, _policies(bundle), self._location_of)
        self.opened: Any = None

    def execute(self) -> Iterator[Any]:
        """Yield materializations of what was published and results of what was checked.

        Raises:
            dg.Failure: A model or an error test failed, or a table cannot be published (not retried); the
                catalog or the DuckDB file is not to be had (retried).
        """
        with standing_objects_left_alone(), self.step.observing():
            error: BaseException | None = None
            try:
                yield from self._execute()
            except BaseException as raised:
                error = raised
                raise
            finally:
                self.seen.ended(error)

    def _execute(self) -> Iterator[Any]:
        selected = self.context.selected_asset_keys
        wanted = {key for key, spec in self.specs.items() if spec.key in selected}
        try:
            catalog = self.opened = self.catalog.open(self.storage, self.home)
            with self.workspace.writing(catalog):
                earlier = self._earlier(catalog, wanted)
                wanted -= earlier.snapshots.keys()
                repeated = self._tests_to_repeat(earlier)
                to_build = self.workspace.prepare(catalog, wanted, full_refresh=self.options.full_refresh)
                results = self._run_dbt(to_build, repeated)
                outcome = audit(self.index, results, to_build, self.workspace.explain)
                self.seen.audited(outcome)
                yield from self._carried_over(catalog, earlier)
                yield from self._publish(catalog, outcome, wanted)
        except CatalogError as error:
            # The message says all; a traceback of a library would hide it.
            raise dg.Failure(str(error), allow_retries=not isinstance(error, NotUsableError)) from error
        except Exception as error:
            if failure := self.workspace.failure(error):
                raise failure from error
            if not is_remote_failure(error):
                raise
            told = catalog_error(error, f"the tables of {self.slug} cannot be looked at")
            raise dg.Failure(str(told), allow_retries=not isinstance(told, NotUsableError)) from error
        finally:
            self._count_requests()

    def _location_of(self, name: str) -> tuple[str, str | None] | None:
        """Return where a table of the product lies, and its snapshot; None where there is none."""
        from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

        try:
            table = self.opened.load_table((self.slug, name))
        except (NoSuchTableError, NoSuchNamespaceError, OSError):
            return None
        snapshot = table.current_snapshot()
        return table.location(), str(snapshot.snapshot_id) if snapshot else None

    def _count_requests(self) -> None:
        counts = request_counts(self.opened)
        for name, count in counts.items():
            if count:
                attributes = {"product": self.slug} | ({"kind": "catalog"} if name == "retries" else {})
                self.step.observed.telemetry.instruments.add(name, count, **attributes)

    def _earlier(self, catalog: Any, wanted: set[str]) -> Earlier:
        if not is_resumed(self.context):
            return Earlier()
        published = [self.assets[key] for key in wanted if self.assets[key]["published"]]
        earlier = earlier_attempts(self.context, catalog, self.slug, published, self.specs, self.mark)
        selected = self.context.selected_asset_check_keys
        asked = {
            key: spec
            for key, spec in self.checks.items()
            if spec.key in selected and self.tests[key]["asset"] in earlier.snapshots
        }
        earlier.checks = recorded_checks(self.context, asked)
        # Where a result was never recorded, the test is repeated; where it cannot be repeated alone, with its table.
        unrecorded = {self.tests[key]["asset"] for key in asked.keys() - earlier.checks.keys()}
        for asset in unrecorded - self.workspace.testable(unrecorded):
            del earlier.snapshots[asset]
        earlier.checks = {
            key: result
            for key, result in earlier.checks.items()
            if self.tests[key]["asset"] in earlier.snapshots
        }
        if earlier.snapshots:
            names = sorted(self.assets[key]["name"] for key in earlier.snapshots)
            self.context.log.info(f"published by an earlier attempt, so left alone: {', '.join(names)}")
        return earlier

    def _tests_to_repeat(self, earlier: Earlier) -> set[str]:
        selected = self.context.selected_asset_check_keys
        return {
            key
            for key, spec in self.checks.items()
            if spec.key in selected
            and self.tests[key]["asset"] in earlier.snapshots
            and key not in earlier.checks
        }

    def _run_dbt(self, to_build: set[str], tests: set[str]) -> dict[str, Any]:
        if not to_build and not tests:
            return {"results": []}
        return self.build.run(self._selection(to_build, tests), self.seen.dbt_event)

    def _selection(self, to_build: set[str], tests: set[str]) -> list[str]:
        if len(to_build) == len(self.assets):
            return []
        names = [f"fqn:{asset['fqn']}" for key, asset in self.assets.items() if key in to_build]
        names += [f"fqn:{key.split('.')[2]}" for key in sorted(tests)]
        # Tests that read a model outside of the selection would judge what this run does not change.
        # An argument each: a single one may not exceed 128 KiB.
        return ["--indirect-selection", "cautious", "--select", *names]

    def _carried_over(self, catalog: Any, earlier: Earlier) -> Iterator[Any]:
        # A step that waits for one of these outputs would be skipped without it.
        repeat = len(self.context.job_def.graph.nodes) > 1
        for key, snapshot in earlier.snapshots.items():
            if key in earlier.recorded and not repeat:
                continue
            table = catalog.load_table((self.slug, self.assets[key]["name"]))
            yield dg.MaterializeResult(
                asset_key=self.specs[key].key,
                data_version=dg.DataVersion(str(snapshot)),
                metadata={
                    "dagster/table_name": f"{self.slug}.{self.assets[key]['name']}",
                    "dagster/uri": table.location(),
                    "iceberg/snapshot_id": str(snapshot),
                },
            )
        yield from earlier.checks.values()

    def _publish(self, catalog: Any, outcome: Audit, wanted: set[str]) -> Iterator[Any]:
        refused: dict[str, str] = {}
        lost = 0
        forbidden = False
        results = self._check_results(outcome)
        todo = [key for key in self.assets if key in outcome.clean and key in wanted]
        with (
            self.workspace.built(catalog) as relations,
            self.progress,
            Publications(relations.publisher, self._publish_one) as publications,
        ):
            for key, published in self._published_in_order(publications, todo, refused):
                asset = self.assets[key]
                if isinstance(published, PublicationError | CatalogError):
                    refused[key] = str(published)
                    forbidden = forbidden or isinstance(published, NotUsableError)
                    lost += isinstance(published, CatalogError)
                    if lost >= GIVE_UP_AFTER:
                        raise published
                    continue
                metadata = relations.describe(asset, outcome.built[key])
                version = None
                if published is not None:
                    self._note_published(relations, asset, published)
                    version = dg.DataVersion(str(published.snapshot_id))
                    metadata |= publication_metadata(published, asset)
                self.seen.done(asset, outcome.built[key], metadata, published)
                metadata |= self.seen.links(asset)
                yield dg.MaterializeResult(
                    asset_key=self.specs[key].key, metadata=metadata, data_version=version
                )
                # Right after its asset: what fails later must not take these results along.
                yield from results.pop(key, ())
        for remaining in results.values():
            yield from remaining
        for key, reason in refused.items():
            self.seen.refused(key, reason)
        self._fail_where_needed(outcome, refused, wanted, try_again=lost > 0 and not forbidden)

    def _published_in_order(
        self, publications: Publications, todo: list[str], refused: dict[str, str]
    ) -> Iterator[tuple[str, Any]]:
        """Publish several tables at once, each after those that it reads; yield each as it is done.

        A table that reads one that was refused is refused, too.
        """
        pending = list(todo)
        unfinished = set(todo)
        while unfinished:
            for key in list(pending):
                asset = self.assets[key]
                blocked = next((up for up in asset["deps"] if up in refused), None)
                if blocked:
                    refused[key] = f"it reads {self.assets[blocked]['name']}, which was not published"
                    pending.remove(key)
                    unfinished.discard(key)
                elif unfinished.isdisjoint(asset["deps"]):
                    if not asset["published"]:
                        pending.remove(key)
                        unfinished.discard(key)
                        yield key, None
                    elif publications.has_room():
                        pending.remove(key)
                        publications.begin(key, asset)
            for key, published in publications.finished():
                unfinished.discard(key)
                yield key, published

    def _publish_one(self, publisher: Publisher, asset: Mapping[str, Any]) -> PublicationResult:
        with self.seen.publishing(asset) as seen:
            result = publisher.publish(self._request(asset))
            seen.append(result)
        return result

    def _request(self, asset: Mapping[str, Any]) -> PublicationRequest:
        product = self.index["product"]
        table, lifecycle = asset.get("table") or {}, product.get("lifecycle") or {}
        return PublicationRequest(
            asset,
            self.slug,
            snapshot_properties={
                **self.mark,
                "floe.product": product["name"],
                "floe.product-version": product["version"],
                "floe.model": asset["name"],
                "floe.dagster-run-id": self.context.run.run_id,
                **self.step.run.identity(),
            },
            column_docs={column["name"]: column["description"] for column in asset["columns"]},
            options=PublicationOptions(
                layout=TableLayout.parse(
                    table.get("partition_by"), table.get("sort_by"), table.get("properties")
                ),
                mode=table.get("write_mode") or "overwrite",
                key=tuple(table.get("key") or ()),
                schema_evolution=lifecycle.get("schema_evolution") or "allow",
                recovery=lifecycle.get("stale_table_recovery_mode"),
                product=product["name"],
            ),
        )

    def _note_published(
        self, relations: BuiltRelations, asset: Mapping[str, Any], result: PublicationResult
    ) -> None:
        relations.published(asset, result)
        changed = (
            "" if result.mode == "overwrite" else f" ({result.mode}: {result.inserted:,} new or changed)"
        )
        self.progress.line(
            f"published {result.table}: {result.rows:,} rows{changed}, snapshot {result.snapshot_id}, "
            f"{result.seconds:.2f} s"
        )

    def _check_results(self, outcome: Audit) -> dict[str, list[dg.AssetCheckResult]]:
        """Return the results of the checks that were asked for, by unique id of their asset."""
        selected = self.context.selected_asset_check_keys
        results: dict[str, list[dg.AssetCheckResult]] = {}
        for key, result in outcome.tests.items():
            spec, check = self.checks[key], self.tests[key]
            if spec.key not in selected or result["status"] == "skipped":
                continue
            metadata: dict[str, Any] = {"status": result["status"], "file": check["file"] or ""}
            if result.get("failures") is not None:
                metadata["failed_rows"] = result["failures"]
            if result.get("message"):
                metadata["message"] = str(result["message"])
            if result["status"] != "pass" and result.get("compiled_code"):
                metadata["query"] = dg.MetadataValue.md(f"```sql\n{result['compiled_code'].strip()}\n```")
            results.setdefault(check["asset"], []).append(
                dg.AssetCheckResult(
                    passed=result["status"] == "pass",
                    asset_key=spec.asset_key,
                    check_name=spec.name,
                    severity=dg.AssetCheckSeverity.WARN
                    if result["status"] == "warn"
                    else dg.AssetCheckSeverity.ERROR,
                    metadata=metadata,
                )
            )
        return results

    def _fail_where_needed(
        self, outcome: Audit, refused: Mapping[str, str], wanted: set[str], *, try_again: bool
    ) -> None:
        reasons = {
            self.assets[key]["name"]: reason
            for key, reason in {**outcome.withheld, **refused}.items()
            if key in self.assets and (key in wanted or key in outcome.built)
        }
        if not reasons:
            return
        lines = [f"- {name}: {reason}" for name, reason in reasons.items()]
        raise dg.Failure(
            "not published, their last snapshots stand:\n" + "\n".join(lines),
            metadata={"withheld": dg.MetadataValue.json(reasons)},
            allow_retries=try_again
            or any(self.workspace.is_transient(reason) for reason in outcome.withheld.values()),
        )


def _policies(bundle: Bundle) -> Mapping[str, Any]:
    results: Mapping[str, Any] = bundle.report().get("policies", {}).get("results", {})
    return results
