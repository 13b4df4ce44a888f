"""Everything that the code location of one product serves."""

from functools import partial
from pathlib import Path

import dagster as dg

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.definitions.compile_assets import build_compile_definitions
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.definitions.kubernetes import kubernetes_tags
from floe_dagster.definitions.observing.process import observe
from floe_dagster.definitions.sensors import INTERVAL_SECONDS, build_sources_sensor
from floe_dagster.home import FloeHome


def build_location_definitions(
    slug: str,
    product_dir: Path,
    manifest: Path | None,
    home: FloeHome,
    bundle: Bundle | None,
    *,
    note: str | None = None,
    sensor_interval_seconds: int = INTERVAL_SECONDS,
    manifest_sha256: str | None = None,
) -> dg.Definitions:
    """Return a product's compile assets and sensor, and what was compiled where there is a bundle.

    Args:
        slug: The product's slug.
        product_dir: Its folder.
        manifest: Platform manifest in place of the one that `floe.yaml` names.
        home: The writable folder.
        bundle: What is served; None where nothing is compiled.
        note: Shown with the compile assets.
        sensor_interval_seconds: How often the sensor looks for changed sources, at least.
        manifest_sha256: Digests of the manifests that may count.

    Raises:
        Exception: Dagster refuses what the bundle holds, or the bundle is damaged.
    """
    digest = observed = None
    pod = kubernetes_tags(slug, "compile")
    product = []
    if bundle is not None:
        artifact, index = bundle.artifact(), bundle.index()
        digest = bundle.digest
        observed = partial(observe, artifact, index, product_dir, home)
        pod = kubernetes_tags(index.product, "compile", artifact)
        product.append(build_product_definitions(bundle, product_dir=product_dir, home=home))
    sensor = build_sources_sensor(
        slug, product_dir, manifest, home, digest, sensor_interval_seconds, observed
    )
    return dg.Definitions.merge(
        build_compile_definitions(
            slug, product_dir, manifest, home, note, digest, observed, pod, manifest_sha256
        ),
        dg.Definitions(sensors=[sensor]),
        *product,
    )
