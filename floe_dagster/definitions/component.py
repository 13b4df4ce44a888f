"""The component of one product: its definitions come from versioned state."""

import logging
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dagster as dg
from dagster.components import DefsStateConfig, DefsStateConfigArgs
from dagster_shared.serdes.objects.models.defs_state_info import DefsStateManagementType

from floe_dagster.compilation.manifest_choice import pins_of
from floe_dagster.compilation.sources import source_state
from floe_dagster.definitions.dagster_private import DefsStateStorage
from floe_dagster.definitions.location import build_location_definitions
from floe_dagster.definitions.sensors import INTERVAL_SECONDS
from floe_dagster.definitions.state import bundles_to_serve, not_pinned, pin_newest, pin_none, state_key
from floe_dagster.home import FloeHome

_log = logging.getLogger("floe_dagster")


@dataclass
class FloeProduct(dg.StateBackedComponent, dg.Resolvable):
    """A product: a folder with `floe.yaml` and a dbt project.

    Loading never compiles and never raises: without state the location has its compile assets and its
    sensor, which compiles by itself.
    """

    product_dir: str
    """Folder of the product, absolute."""
    manifest: str | None = None
    """Platform manifest in place of the one that floe.yaml names."""
    sensor_interval_seconds: int = INTERVAL_SECONDS
    """How often the sensor looks for changed sources, at least."""
    manifest_sha256: str | None = None
    """Digests of the manifests that may count, as `floe-dagster platform digest` prints them; separated by commas."""

    @property
    def defs_state_config(self) -> DefsStateConfig:
        arguments = DefsStateConfigArgs(
            management_type=DefsStateManagementType.VERSIONED_STATE_STORAGE, refresh_if_dev=False
        )
        return DefsStateConfig.from_args(arguments, default_key=state_key(self.slug))

    @property
    def slug(self) -> str:
        """The product's slug, as its spec says; the folder's name where that cannot be read."""
        from floe_dagster.compilation.sources import product_slug

        return product_slug(Path(self.product_dir))

    def write_state_to_path(self, state_path: Path) -> None:
        """Compile the product into `state_path` (`dg utils refresh-defs-state`)."""
        import shutil

        from floe_dagster.definitions.compiling import compile_product
        from floe_dagster.findings import InputError

        result = compile_product(
            Path(self.product_dir), manifest=self._manifest(), manifest_sha256=self.manifest_sha256
        )
        if result.bundle_path is None:
            raise InputError(result.findings)
        shutil.copyfile(result.bundle_path, state_path)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the product's definitions, from the stored state where there is a storage that answers."""
        if DefsStateStorage.get() is None:
            # A plain import, outside of any Dagster process, has no instance.
            pin_none(self.slug)
            return self.build_defs_from_state(context, None)
        try:
            pin_newest(self.slug)
            return super().build_defs(context)
        except Exception as error:  # a storage that is away must not take the location down
            _log.warning("the state of %s cannot be read from Dagster's storage: %s", self.slug, error)
            return self.build_defs_from_state(context, None)

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        product_dir, manifest = Path(self.product_dir), self._manifest()
        home = FloeHome.locate(product_dir)
        slug = self.slug
        digest = source_state(product_dir, manifest=manifest, home=home).digest
        problems: list[str] = []
        location = partial(
            build_location_definitions,
            slug,
            product_dir,
            manifest,
            home,
            sensor_interval_seconds=self.sensor_interval_seconds,
            manifest_sha256=self.manifest_sha256,
        )
        definitions: dg.Definitions | None = None
        pins = pins_of(os.environ, self.manifest_sha256)
        for bundle in bundles_to_serve(state_path, product_dir, slug, digest, home, problems):
            try:
                if refusal := not_pinned(bundle, pins):
                    problems.append(refusal)
                    continue
                definitions = location(bundle)
            except Exception as error:  # a broken state must not take the location down
                problems.append(f"the state {bundle.digest[7:19]} cannot be served: {error}")
            else:
                if problems:
                    problems.append(f"{slug} serves the state {bundle.digest[7:19]} instead")
                break
        if definitions is None:
            note = (
                f"**{slug} has no compiled state yet.** Its sensor `{slug}_sources` compiles it; or materialize this "
                "group, or run `floe-dagster compile`."
            )
            problems.append(note.replace("*", ""))
            definitions = location(None, note=note)
        for problem in problems:
            _log.warning(problem)
        return definitions

    def _manifest(self) -> Path | None:
        return Path(self.manifest) if self.manifest else None
