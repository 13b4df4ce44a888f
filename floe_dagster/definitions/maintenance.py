"""The maintenance job of a product: expired rows, small files, old snapshots, orphans, retired tables."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from floe_dagster.definitions.asset_specs import asset_key
from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.definitions.outcomes import as_failures
from floe_dagster.definitions.resources import catalog_key, storage_key
from floe_dagster.definitions.run_retries import run_retry_tags
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.errors import CatalogError, PublicationError
from floe_dagster.iceberg.maintenance import Rules, TableMaintenance, drop_retired, retired_tables
from floe_dagster.observability.audit_log import AuditLog, AuditRecord, launched_by, of_table
from floe_dagster.schemas.product_index import Asset, Lifecycle, ProductIndex

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

CRON = "15 3 * * *"
_SCRATCH_SECONDS = 86_400


class MaintenanceConfig(dg.Config):
    """What a person may ask of one maintenance run."""

    dry_run: bool = Field(False, description="Only look: report what would be done, change nothing.")
    tables: list[str] = Field([], description="Models whose tables are maintained; all when empty.")
    orphan_age_hours: int = Field(
        72, ge=24, description="Files that no snapshot names are removed when older; 24 or more."
    )
    drop_retired: list[str] = Field(
        [], description="Tables that no model publishes any more and that shall be dropped, by name."
    )


def build_maintenance_definitions(
    index: ProductIndex,
    home: FloeHome,
    resources: dict[str, Any],
    tags: dict[str, Any],
    observed: Callable[[], Observed],
) -> dg.Definitions:
    """Return the maintenance job of one product and its schedule.

    Args:
        index: Its assets and checks.
        home: The writable folder.
        resources: Catalog and storage, by key.
        tags: `dagster-k8s/config` of the product.
        observed: Who is told of a run.
    """
    product = index.product
    slug = product.slug
    lifecycle = product.lifecycle
    assets = {asset.name: asset for asset in index.assets if asset.published}

    @dg.op(
        name=f"{slug}_maintain",
        required_resource_keys=set(resources),
        tags=tags,
        retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
        description="Delete expired rows, compact small files, expire snapshots, remove orphans, report retired tables.",
    )
    def maintain(context: dg.OpExecutionContext, config: MaintenanceConfig) -> None:
        # Who only looks, changes nothing that somebody would have to account for.
        audit = AuditLog(home, product.audited and not config.dry_run)
        begun = AuditRecord(
            "maintain",
            slug,
            run_id=context.run_id,
            launched_by=launched_by(context.run.tags),
            details=config.model_dump(exclude={"dry_run"}, exclude_defaults=True),
        )
        with ObservedStep(observed(), context).observing(), audit.action(begun):
            _maintain_all(context, config, audit, begun)

    def _maintain_all(
        context: dg.OpExecutionContext, config: MaintenanceConfig, audit: AuditLog, begun: AuditRecord
    ) -> None:
        storage = getattr(context.resources, storage_key(slug))
        failed: dict[str, str] = {}
        with as_failures(f"the tables of {slug} could not be maintained"):
            catalog = getattr(context.resources, catalog_key(slug)).open(storage, home)
            unknown = sorted(set(config.tables) - assets.keys())
            if unknown:
                raise PublicationError(
                    f"no model publishes {', '.join(unknown)}; those that do: {', '.join(sorted(assets))}"
                )
            _remove_old_scratch(home.path / "scratch")
            for name, asset in assets.items():
                if config.tables and name not in config.tables:
                    continue
                try:
                    found = _maintain_table(context, catalog, slug, asset, lifecycle, config, home)
                except (CatalogError, PublicationError) as error:
                    failed[name] = str(error)
                    audit.add(of_table(begun, f"{slug}.{name}", "failed", {"error": type(error).__name__}))
                else:
                    if any(found.values()):
                        audit.add(of_table(begun, f"{slug}.{name}", "succeeded", found))
            retired = retired_tables(catalog, slug, set(assets))
            dropped = _report_retired(context, catalog, slug, product.name, retired, config)
            for name, gone in dropped.items():
                record = of_table(begun, f"{slug}.{name}", "succeeded", gone)
                audit.add(replace(record, action="drop"))
        if failed:
            raise dg.Failure(
                "not maintained:\n" + "\n".join(f"- {name}: {text}" for name, text in failed.items()),
                metadata={"failed": dg.MetadataValue.json(failed)},
            )

    @dg.job(
        name=f"{slug}_maintenance",
        description=f"Look after the tables of {product.name}. With dry_run it reports and changes nothing.",
        tags={**tags, **run_retry_tags()},
    )
    def maintenance() -> None:
        maintain()

    # Rules that nobody enforces are no rules: where governance has some, the schedule runs.
    governed = lifecycle.default_ttl_hours is not None or lifecycle.snapshot_keep_last is not None
    schedule = dg.ScheduleDefinition(
        name=f"{slug}_maintenance_schedule",
        job=maintenance,
        cron_schedule=CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if governed else dg.DefaultScheduleStatus.STOPPED,
    )
    return dg.Definitions(jobs=[maintenance], schedules=[schedule])


def _maintain_table(
    context: dg.OpExecutionContext,
    catalog: "Catalog",
    slug: str,
    asset: Asset,
    lifecycle: Lifecycle,
    config: MaintenanceConfig,
    home: FloeHome,
) -> dict[str, Any]:
    """Look after one table; return how much was done, by what."""
    if not catalog.table_exists(asset.identifier(slug)):
        return {}
    rules = Rules(
        retention_days=lifecycle.data_retention_days,
        ttl_hours=lifecycle.default_ttl_hours,
        keep_last=lifecycle.snapshot_keep_last,
        orphan_age=timedelta(hours=config.orphan_age_hours),
    )
    maintenance = TableMaintenance(
        catalog,
        slug,
        asset.name,
        rules,
        dry_run=config.dry_run,
        expire_by=asset.table.expire_by,
        scratch=home.path / "scratch",
    )
    report = maintenance.run()
    found = report.as_dict()
    notes = found.pop("notes")
    found.pop("table")
    prefix = "would be " if config.dry_run else ""
    context.log.info(
        f"{report.table}: {report.rows_deleted:,} rows {prefix}deleted, {report.files_compacted} files {prefix}compacted, "
        f"{report.snapshots_expired} snapshots {prefix}expired, {report.orphans_removed} orphans {prefix}removed, "
        f"{report.bytes_freed:,} bytes {prefix}freed" + "".join(f"; {note}" for note in notes)
    )
    context.log_event(
        dg.AssetObservation(
            asset_key=asset_key(slug, asset.name),
            description="maintenance, preview" if config.dry_run else "maintenance",
            metadata={f"maintenance/{name}": value for name, value in found.items()},
        )
    )
    return {name: value for name, value in found.items() if isinstance(value, int)}


def _report_retired(
    context: dg.OpExecutionContext,
    catalog: "Catalog",
    slug: str,
    product: str,
    retired: list[dict[str, Any]],
    config: MaintenanceConfig,
) -> dict[str, Any]:
    """Report the tables that no model publishes any more; return those that were dropped."""
    names = {entry["table"] for entry in retired}
    wrong = sorted(set(config.drop_retired) - names)
    if wrong:
        raise PublicationError(
            f"drop_retired names {', '.join(wrong)}, which "
            + (
                f"are not retired; retired are: {', '.join(sorted(names))}"
                if names
                else "are not there or are published"
            )
        )
    dropped: dict[str, Any] = {}
    for name in config.drop_retired:
        if not config.dry_run:
            dropped[name] = dict(drop_retired(catalog, slug, name, product))
            context.log.info(
                f"dropped {slug}.{name}: {dropped[name]['files']} files, {dropped[name]['bytes']:,} bytes"
            )
    left = [entry for entry in retired if entry["table"] not in dropped]
    if left:
        listed = ", ".join(f"{slug}.{entry['table']} ({entry['rows']:,} rows)" for entry in left)
        context.log.warning(
            f"no model publishes these tables any more: {listed}. Drop them with the config drop_retired, or keep them"
        )
    context.add_output_metadata(
        {
            "retired_tables": dg.MetadataValue.json(left),
            "dropped_tables": dg.MetadataValue.json(dropped),
            "dry_run": config.dry_run,
        }
    )
    return dropped


def _remove_old_scratch(folder: Path) -> None:
    """Remove what a run that was killed left on its way to the store."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        try:
            if time.time() - entry.stat().st_mtime > _SCRATCH_SECONDS:
                shutil.rmtree(entry, ignore_errors=True)
        except OSError:
            continue
