"""Catalog, storage and engine of a product as an asset check, with a job of its own."""

from collections.abc import Callable
from typing import Any

import dagster as dg

from floe_dagster.definitions.asset_specs import asset_key
from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.home import FloeHome
from floe_dagster.platform.check import check_platform
from floe_dagster.schemas.artifacts import ResolvedPlugins


def build_health_definitions(
    slug: str,
    plugins: ResolvedPlugins | None,
    home: FloeHome,
    tags: dict[str, Any],
    observed: Callable[[], Observed],
) -> dg.Definitions:
    """Return the check `platform_health` on the product's platform manifest, and the job that runs it.

    Args:
        slug: Of the product.
        plugins: From the compiled artifact.
        home: The writable folder.
        tags: `dagster-k8s/config` of the product.
        observed: Who is told of a run.
    """

    @dg.asset_check(
        asset=asset_key(slug, "platform_manifest"),
        name="platform_health",
        description="Catalog and engine reachable, credentials accepted, namespace and bucket writable, clocks, versions.",
        compute_kind="floe",
        op_tags=tags,
    )
    def platform_health(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with ObservedStep(observed(), context.op_execution_context).observing():
            return _health()

    def _health() -> dg.AssetCheckResult:
        checks = check_platform(
            plugins.catalog if plugins else None,
            plugins.storage if plugins else None,
            engines=plugins.engines_by_field() if plugins else None,
            home=home,
            namespaces=(slug,),
        )
        records = [
            dg.TableRecord(
                {
                    "check": check.name,
                    "passed": check.passed,
                    "seen": check.message,
                    "fix": check.fix,
                    "seconds": round(check.seconds, 3),
                }
            )
            for check in checks
        ]
        broken = [check for check in checks if not check.passed]
        return dg.AssetCheckResult(
            passed=not broken,
            severity=dg.AssetCheckSeverity.ERROR,
            description="; ".join(check.message for check in broken) or "everything answers",
            metadata={
                "checks": dg.MetadataValue.table(records),
                **({"fix": " ".join(dict.fromkeys(check.fix for check in broken))} if broken else {}),
            },
        )

    job = dg.define_asset_job(
        f"{slug}_platform_check",
        selection=dg.AssetSelection.checks(platform_health),
        description="Look at catalog, storage and engine as a run would use them.",
        tags=tags,
    )
    return dg.Definitions(asset_checks=[platform_health], jobs=[job])
