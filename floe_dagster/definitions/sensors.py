"""A sensor per product: when a source's content changes, the product is compiled again.

It also ends the runs whose `floe-dagster run` was killed.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg

from floe_dagster.compilation.sources import source_state
from floe_dagster.definitions.command_runs import end_killed_command
from floe_dagster.definitions.observing.process import Observed
from floe_dagster.definitions.observing.ticks import trace_tick
from floe_dagster.home import FloeHome

INTERVAL_SECONDS = 30


def build_sources_sensor(
    slug: str,
    product_dir: Path,
    manifest: Path | None,
    home: FloeHome,
    served: str | None,
    interval_seconds: int = INTERVAL_SECONDS,
    observed: Callable[[], Observed] | None = None,
) -> dg.SensorDefinition:
    """Return the sensor that watches the manifest chain, the spec and the dbt project.

    Args:
        slug: The product's slug.
        product_dir: Its folder.
        manifest: Platform manifest in place of the one that `floe.yaml` names.
        home: The stat cache lies here: an unchanged look reads no file.
        served: Digest of the state that the location serves; None where there is none.
        interval_seconds: How often it looks, at least.
        observed: Who is told of a tick that asks for a run; nobody before the first compilation.
    """

    @dg.sensor(
        name=f"{slug}_sources",
        job_name=f"{slug}_compile",
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Compiles the product when its manifest chain, spec or dbt project changes.",
    )
    def sources_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        begun = time.time()
        # No launcher and no other sensor knows of a run that a command executes.
        for run_id in end_killed_command(lambda: context.instance, slug, home, observed):
            context.log.info(f"run {run_id} was killed with its command; it is marked as failed")
        cursor = json.loads(context.cursor) if context.cursor else {"seq": 0, "digest": None}
        digest = source_state(product_dir, manifest=manifest, home=home).digest
        if digest == cursor["digest"]:
            return dg.SensorResult(skip_reason=dg.SkipReason("unchanged"))
        cursor = {"seq": cursor["seq"] + 1, "digest": digest}
        if digest == served:
            return dg.SensorResult(
                skip_reason=dg.SkipReason("the state served fits the sources"), cursor=json.dumps(cursor)
            )
        # The digest alone would let A -> B -> A skip the way back: a run key counts for ever.
        tags = {"floe/digest": digest[7:19]}
        if observed is not None:
            tags |= trace_tick(observed, f"sensor {slug}_sources", begun)
        return dg.SensorResult(
            run_requests=[dg.RunRequest(run_key=f"{cursor['seq']}-{digest}", tags=tags)],
            cursor=json.dumps(cursor),
        )

    return sources_sensor
