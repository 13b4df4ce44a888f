"""From one bundle to the definitions of one product."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.dbt_server import own_dbt
from floe_dagster.definitions.asset_specs import asset_specs, check_specs
from floe_dagster.definitions.command_runs import without_retry_of_interruptions
from floe_dagster.definitions.health import build_health_definitions
from floe_dagster.definitions.kubernetes import kubernetes_tags
from floe_dagster.definitions.maintenance import build_maintenance_definitions
from floe_dagster.definitions.observing.process import Observed, is_observed, observe
from floe_dagster.definitions.observing.run_sensors import build_run_sensors
from floe_dagster.definitions.observing.ticks import trace_tick
from floe_dagster.definitions.product_run import ProductStep, RunResources
from floe_dagster.definitions.queue.tags import catalog_tags, run_tags
from floe_dagster.definitions.resources import DbtResource, build_resources, catalog_key, storage_key
from floe_dagster.definitions.run_retries import run_retry_tags
from floe_dagster.execution.context import RunOptions
from floe_dagster.home import FloeHome
from floe_dagster.schemas.product_index import ProductFacts


class ProductRunConfig(dg.Config):
    """What a person may ask of one run."""

    full_refresh: bool = False
    """Rebuild incremental models and seeds from nothing."""
    vars: dict[str, Any] = {}
    """dbt variables of this run."""


def build_product_definitions(
    bundle: Bundle, *, product_dir: Path, home: FloeHome, launched: bool = True
) -> dg.Definitions:
    """Return the assets, checks, job, schedule and resources of one product.

    Args:
        bundle: What was compiled.
        product_dir: Where the sources are edited; runs execute those of the bundle.
        home: The writable folder.
        launched: Whether Dagster launches the runs; False where a command executes them in its own process. Those wait
            in the file lock alone, since nobody frees a pool's slot once that process is killed, and are over when
            they are interrupted.

    Raises:
        BundleError: The bundle is damaged.
    """
    index = bundle.index()
    product = index.product
    slug = product.slug
    artifact = bundle.artifact()
    plugins = artifact.plugins
    engine = artifact.default_engine
    engines = sorted({asset.engine for asset in index.assets} or {engine})
    specs, checks = asset_specs(index, product_dir), check_specs(index)
    pods = partial(kubernetes_tags, product, artifact=artifact)
    resources = build_resources(slug, plugins)
    observed_here = partial(observe, artifact, index, product_dir, home)
    # Keyed by product, so that several products fit into one location.
    dbt_key = f"{slug}_dbt"
    dbt = DbtResource(dbt_executable=str(own_dbt()))
    step = ProductStep(bundle, index, specs, checks, home)

    @dg.multi_asset(
        name=f"{slug}_dbt",
        specs=list(specs.values()),
        check_specs=list(checks.values()),
        can_subset=True,
        # The one pool of an op is the guarantee, also for runs that came by no queue: one writer of a product,
        # also while it moves to another engine.
        pool=f"{slug}_writer" if launched else None,
        op_tags=pods("run"),
        required_resource_keys={dbt_key, *resources},
        # Infrastructure failures only: a failed test or model forbids its retry.
        retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL),
    )
    def dbt_models(context: dg.AssetExecutionContext, config: ProductRunConfig) -> Iterator[Any]:
        options = RunOptions(full_refresh=config.full_refresh, vars=config.vars)
        given = RunResources(
            *(getattr(context.resources, key) for key in (dbt_key, catalog_key(slug), storage_key(slug)))
        )
        events = step.events(context, options, given, observe(artifact, index, product_dir, home))
        yield from events if launched else without_retry_of_interruptions(events)

    job = dg.define_asset_job(
        f"{slug}_run",
        selection=dg.AssetSelection.assets(dbt_models) | dg.AssetSelection.checks_for_assets(dbt_models),
        description=f"Compute, check and publish {product.name}.",
        tags={**pods("run"), **run_retry_tags(), **(run_tags(slug, plugins, engines) if launched else {})},
    )
    own = dg.Definitions(
        assets=[dbt_models],
        jobs=[job],
        schedules=_schedules(product, job, observed_here),
        sensors=build_run_sensors(slug, observed_here) if is_observed(artifact.observability) else [],
        resources={dbt_key: dbt, **resources},
    )
    return dg.Definitions.merge(
        own,
        build_maintenance_definitions(
            index, home, resources, {**pods("maintenance"), **catalog_tags(plugins)}, observed_here
        ),
        build_health_definitions(slug, plugins, home, pods("health"), observed_here),
    )


def _schedules(
    product: ProductFacts, job: Any, observed: Callable[[], Observed]
) -> list[dg.ScheduleDefinition]:
    schedule, slug = product.schedule, product.slug
    if schedule is None:
        return []
    status = dg.DefaultScheduleStatus.RUNNING if schedule.enabled else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        name=f"{slug}_schedule",
        job=job,
        cron_schedule=schedule.cron,
        execution_timezone=schedule.timezone,
        default_status=status,
    )
    def run_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        begun = time.time()
        return dg.RunRequest(tags=trace_tick(observed, f"schedule {slug}_schedule", begun))

    return [run_schedule]
