"""An older image meets the state that a newer one stored: what is served, and what its runs load."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from dagster._core.definitions.repository_definition import RepositoryLoadData
from dagster._core.storage.defs_state.base import DEFS_STATE_INFO_CURSOR_KEY, set_defs_state_storage
from dagster._serdes import serialize_value
from dagster_shared.serdes.objects.models.defs_state_info import DefsStateInfo

from floe_dagster import load_product_definitions
from floe_dagster.compilation.bundle import ARTIFACT, ASSET_INDEX, HEADER
from floe_dagster.definitions.state import state_key
from floe_dagster.home import FloeHome
from floe_dagster.schemas.product_index_json import INDEX_VERSION
from tests.jobs import without_state
from tests.locations import bake

pytestmark = pytest.mark.slow

COMPILE = {"platform_manifest", "resolved_governance", "compiled_artifacts", "dbt_manifest"}
OLD = "select 1 as id, 'paid' as status\n"
NEW = "select 1 as id, 'paid' as status, 'EUR' as currency\n"


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    folder = tmp_path / "dagster"
    folder.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.get() as made:
        yield made


class Image:
    """The sources as an image holds them, without anything that the pods of another image had on their volumes."""

    def __init__(self, shop: Path, instance: dg.DagsterInstance) -> None:
        self.shop, self.instance = shop, instance
        self.home = shop.parent / "home"

    def deploy(self, orders: str) -> None:
        (self.shop / "models" / "orders.sql").write_text(orders)
        shutil.rmtree(self.home, ignore_errors=True)

    def compile(self) -> str:
        job = load_product_definitions(self.shop).resolve_job_def("shop_compile")
        assert job.execute_in_process(instance=self.instance).success
        return self.newest()

    def newest(self) -> str:
        storage = self.instance.defs_state_storage
        assert storage is not None
        version = storage.get_latest_version(state_key("shop"))
        assert version is not None
        return version

    def stored(self, version: str) -> Path:
        path: Path = self.instance.defs_state_storage._get_state_path(state_key("shop"), version)  # type: ignore[union-attr]
        return Path(str(path))

    def load(self, pinned: str | None = None) -> tuple[dg.Definitions, str | None]:
        """Load the location as its server does, or, with a pinned version, as a run's pod does; returns what is pinned."""
        if pinned is None:
            return self.load_in(DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION))
        return self.load_in(reconstruction(DefsStateInfo.add_version(None, state_key("shop"), pinned)))

    def load_in(self, context: DefinitionsLoadContext) -> tuple[dg.Definitions, str | None]:
        """Load the location where the process has a context already; returns what the context then names."""
        with DefinitionsLoadContext.scoped(context):
            definitions = load_product_definitions(self.shop)
            accessed = context.accessed_defs_state_info
        return definitions, accessed.get_version(state_key("shop")) if accessed else None


def reconstruction(info: DefsStateInfo | None) -> DefinitionsLoadContext:
    """Return the context of a run whose launch named the states in `info`."""
    return DefinitionsLoadContext(
        DefinitionsLoadType.RECONSTRUCTION, RepositoryLoadData(defs_state_info=info) if info else None
    )


def left_by_a_run_of_somebody_else() -> DefinitionsLoadContext:
    """Return the context that Dagster itself leaves in the process after a run."""
    with DefinitionsLoadContext.scoped(None), dg.DagsterInstance.ephemeral() as instance:  # type: ignore[arg-type]
        assert dg.execute_job(dg.reconstructable(without_state), instance=instance).success
        left = DefinitionsLoadContext.get()
        assert DefinitionsLoadContext.is_set() and left.load_type is DefinitionsLoadType.RECONSTRUCTION
    return left


@pytest.fixture
def image(shop: Path, instance: dg.DagsterInstance) -> Image:
    return Image(shop, instance)


def columns(definitions: dg.Definitions) -> set[str]:
    sql = ran(definitions)
    return {name for name in ("id", "status", "currency") if f"as {name}" in sql}


def ran(definitions: dg.Definitions) -> str:
    """Return the SQL of `orders` that a run of these definitions executes: that of the bundle."""
    job = definitions.resolve_job_def("shop_run")
    done = job.execute_in_process(asset_selection=[dg.AssetKey(["shop", "orders"])])
    (event,) = done.asset_materializations_for_node("shop_dbt")
    found: Any = event.metadata["dagster/column_schema"].value
    return " ".join(f"as {column.name}" for column in found.columns)


def assets(definitions: dg.Definitions) -> set[str]:
    return {key.path[-1] for key in definitions.get_repository_def().asset_graph.get_all_asset_keys()}


def asks_to_compile(definitions: dg.Definitions, instance: dg.DagsterInstance) -> bool:
    sensor = definitions.get_repository_def().get_sensor_def("shop_sources")
    with dg.build_sensor_context(instance=instance) as context:
        return bool(sensor.evaluate_tick(context).run_requests)


def test_the_older_image_serves_what_it_had_stored_itself_without_compiling(
    image: Image, instance: dg.DagsterInstance
) -> None:
    image.deploy(OLD)
    old = image.compile()
    image.deploy(NEW)
    new = image.compile()
    assert old != new

    image.deploy(OLD)
    definitions, pinned = image.load()
    assert pinned == old and image.newest() == new
    assert not asks_to_compile(definitions, instance)
    # A run's pod knows the pinned version, and has an empty volume.
    image.deploy(OLD)
    again, _ = image.load(pinned=old)
    assert columns(again) == {"id", "status"}

    image.deploy(NEW)
    forward, pinned = image.load()
    assert pinned == new
    assert columns(forward) == {"id", "status", "currency"}


def test_a_run_that_was_launched_before_keeps_the_state_that_it_was_planned_with(image: Image) -> None:
    image.deploy(NEW)
    new = image.compile()
    image.deploy(OLD)
    old = image.compile()
    # The manifest was edited, or the image replaced, between the launch and the start of the pod.
    image.deploy(NEW)
    definitions, _ = image.load(pinned=old)
    assert old != new
    assert columns(definitions) == {"id", "status"}


def test_what_a_run_of_somebody_else_left_in_the_process_hides_no_state(
    image: Image, instance: dg.DagsterInstance
) -> None:
    left = left_by_a_run_of_somebody_else()
    image.deploy(OLD)
    definitions, pinned = image.load_in(left)
    assert assets(definitions) == COMPILE and pinned is None
    old = image.compile()
    definitions, pinned = image.load_in(left)
    assert pinned == old
    assert assets(definitions) == COMPILE | {"orders", "daily"}
    image.deploy(NEW)
    new = image.compile()
    for sources, version in ((NEW, new), (OLD, old)):
        image.deploy(sources)
        definitions, pinned = image.load_in(left)
        assert pinned == version and image.newest() == new != old
        assert not asks_to_compile(definitions, instance)


def test_where_no_launch_named_a_state_of_the_product_the_newest_is_served(image: Image) -> None:
    """As in the processes of `dg launch` and `dagster job execute`."""
    image.deploy(OLD)
    old = image.compile()
    store = state_key("store")
    for named in (
        None,
        DefsStateInfo.empty(),
        DefsStateInfo.add_version(None, store, "a1"),
        DefsStateInfo.add_version(None, store, None),
    ):
        definitions, pinned = image.load_in(reconstruction(named))
        # It is pinned, so that whatever the run starts from here loads the same.
        assert pinned == old
        assert assets(definitions) == COMPILE | {"orders", "daily"}


def test_a_run_that_was_launched_without_a_state_gets_none_that_was_stored_since(image: Image) -> None:
    image.deploy(OLD)
    launched = DefsStateInfo.add_version(None, state_key("shop"), None)
    image.compile()
    definitions, pinned = image.load_in(reconstruction(launched))
    assert pinned is None
    assert assets(definitions) == COMPILE


def test_runs_of_a_location_without_a_storage_load_what_it_served(image: Image) -> None:
    image.deploy(NEW)
    more = image.shop / "models" / "more.sql"
    more.write_text("select 1 as id\n")
    newest = image.compile()
    more.unlink()
    image.deploy(OLD)
    bake(image.shop, FloeHome(image.home))
    # Neither fits, so that the digest does not decide.
    manifest = image.shop.parent / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("version: 1.0.0", "version: 1.0.1"))
    with set_defs_state_storage(None):
        context = DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION, RepositoryLoadData())
        served, _ = image.load_in(context)
    of_the_run, pinned = image.load_in(reconstruction(context.accessed_defs_state_info))
    assert pinned is None and image.newest() == newest
    assert assets(served) == assets(of_the_run) == COMPILE | {"orders", "daily"}


def test_where_its_state_was_cleaned_up_the_newest_is_served_until_it_compiles(
    image: Image, instance: dg.DagsterInstance
) -> None:
    image.deploy(OLD)
    old = image.compile()
    image.deploy(NEW)
    new = image.compile()
    image.stored(old).unlink()
    image.deploy(OLD)
    definitions, pinned = image.load()
    assert pinned == new
    assert asks_to_compile(definitions, instance)
    assert image.compile() == old


def test_a_storage_that_forgot_which_state_is_the_newest_still_has_it(
    image: Image, instance: dg.DagsterInstance
) -> None:
    image.deploy(OLD)
    old = image.compile()
    # Another writer of the one cursor of all products; or Dagster's database, lost or restored.
    instance.run_storage.set_cursor_values(
        {DEFS_STATE_INFO_CURSOR_KEY: serialize_value(DefsStateInfo.empty())}
    )
    image.deploy(OLD)
    definitions, pinned = image.load()
    assert pinned == old
    assert assets(definitions) == COMPILE | {"orders", "daily"}
    assert not asks_to_compile(definitions, instance)


def newer_format(files: dict[str, bytes]) -> None:
    files[HEADER] = json.dumps({**json.loads(files[HEADER]), "format": 2}).encode()


def newer_major(files: dict[str, bytes]) -> None:
    files[ARTIFACT] = json.dumps({**json.loads(files[ARTIFACT]), "version": "1.0.0"}).encode()


def newer_index(files: dict[str, bytes]) -> None:
    files[ASSET_INDEX] = json.dumps({**json.loads(files[ASSET_INDEX]), "version": INDEX_VERSION + 1}).encode()


def other_index(files: dict[str, bytes]) -> None:
    files[ASSET_INDEX] = b'{"products": []}'


def newer_minor(files: dict[str, bytes]) -> None:
    files[ARTIFACT] = json.dumps(
        {**json.loads(files[ARTIFACT]), "version": "0.99.0", "encryption": {"a": 1}}
    ).encode()


def rewrite(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (newer_format, "has bundle format 2, this version reads 1"),
        (newer_major, "the artifact has version 1.0.0, this floe-dagster reads up to 0.x"),
        (newer_index, f"has version {INDEX_VERSION + 1}, and this floe-dagster reads versions up to"),
        (other_index, "cannot be served"),
    ],
)
def test_a_state_of_a_newer_version_gives_way_to_the_one_in_the_image(
    image: Image,
    instance: dg.DagsterInstance,
    change: Callable[[dict[str, bytes]], None],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image.deploy(OLD)
    baked = bake(image.shop, FloeHome(image.home))
    image.deploy(NEW)
    rewrite(image.stored(image.compile()), change)
    # Neither fits: the manifest of the cluster is not the one of the build.
    manifest = image.shop.parent / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("version: 1.0.0", "version: 1.0.1"))
    image.deploy(OLD)
    definitions, _ = image.load()
    assert assets(definitions) == COMPILE | {"orders", "daily"}
    assert said in caplog.text
    assert f"shop serves the state {baked.digest[7:19]} instead" in caplog.text
    assert asks_to_compile(definitions, instance)
    image.compile()
    assert columns(image.load()[0]) == {"id", "status"}


def test_a_state_of_a_newer_minor_version_is_served(image: Image) -> None:
    image.deploy(OLD)
    rewrite(image.stored(image.compile()), newer_minor)
    shutil.rmtree(image.home)
    with pytest.warns(UserWarning, match="newer than 0.10.0"):
        definitions, _ = image.load()
    assert assets(definitions) == COMPILE | {"orders", "daily"}


def test_without_any_state_that_can_be_read_the_location_loads_and_compiles(
    image: Image, instance: dg.DagsterInstance, caplog: pytest.LogCaptureFixture
) -> None:
    image.deploy(OLD)
    rewrite(image.stored(image.compile()), newer_major)
    shutil.rmtree(image.home)
    definitions, _ = image.load()
    assert assets(definitions) == COMPILE
    assert "has no compiled state yet" in caplog.text
    assert asks_to_compile(definitions, instance)
