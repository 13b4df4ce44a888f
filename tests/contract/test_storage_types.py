"""A storage type is told by what it is, and by its name in its own module alone."""

from __future__ import annotations

import ast
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args

import pytest

import floe_dagster
from floe_dagster.definitions.resources import StorageResource, build_resources, storage_key
from floe_dagster.iceberg.storage import Storage, storage_of
from floe_dagster.platform.bootstrap import Bootstrap
from floe_dagster.schemas.artifacts import PluginRef, ResolvedPlugins
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.plugins import ManifestPlugins
from floe_dagster.schemas.storage_types import STORAGE_TYPES
from floe_dagster.schemas.storage_types.storage_type import StorageType

PACKAGE = Path(floe_dagster.__file__).parent
TYPES = PACKAGE / "schemas" / "storage_types"
KINDS = pytest.mark.parametrize("kind", STORAGE_TYPES.values(), ids=list(STORAGE_TYPES))


def asked(path: Path) -> list[str]:
    """Return where a module compares something with the name of a type."""
    return [
        f"{path.name}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Constant) and side.value in STORAGE_TYPES
    ]


def test_nobody_asks_for_a_type_by_its_name(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("storage.type != 'local'\nif 'minio' == kind: pass\nscheme in ('s3', 's3a')\n")
    assert asked(module) == ["module.py:1", "module.py:2"]
    modules = [path for path in PACKAGE.rglob("*.py") if path.parent != TYPES]
    assert len(modules) > 100 and [place for path in modules for place in asked(path)] == []


@KINDS
def test_what_a_type_names_is_there(kind: StorageType) -> None:
    assert get_args(kind.plugin.model_fields["type"].annotation) == (kind.name,)
    assert isinstance(resolve_name(kind.files), Storage) and storage_of(kind.name) is resolve_name(kind.files)
    resource = resolve_name(kind.resource)
    assert issubclass(resource, StorageResource) and resource.plugin_type == kind.name
    # A field that the manifest has and the resource has not would be lost on its way to a run.
    assert set(kind.plugin.model_fields["config"].annotation.model_fields) <= set(resource.model_fields)  # type: ignore[union-attr]
    assert kind.is_shared or kind.root is None


SETTINGS: dict[str, dict[str, Any]] = {
    "local": {},
    "s3": {"bucket": "b"},
    "minio": {"bucket": "b", "endpoint": "http://127.0.0.1:9"},
}


@KINDS
def test_a_resource_gives_back_its_plugin(kind: StorageType) -> None:
    given = SETTINGS[kind.name]
    plugins = ResolvedPlugins(
        compute=PluginRef(type="duckdb"),
        orchestrator=PluginRef(type="dagster"),
        storage=PluginRef(type=kind.name, config=given),
    )
    plugin = build_resources("shop", plugins)[storage_key("shop")].plugin()
    assert plugin.type == kind.name and given.items() <= (plugin.config or {}).items()


@pytest.mark.parametrize(
    ("environ", "who"),
    [
        ({}, None),
        ({"MINIO_ROOT_USER": "root"}, None),
        ({"MINIO_ROOT_PASSWORD": "secret"}, None),
        ({"MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": "secret"}, ("root", "secret")),
    ],
)
@KINDS
def test_who_makes_a_bucket_is_named_as_a_whole(
    kind: StorageType, environ: dict[str, str], who: tuple[str, str] | None
) -> None:
    plugins = ManifestPlugins.model_validate({"storage": {"type": kind.name, "config": SETTINGS[kind.name]}})
    manifest = PlatformManifest.model_construct(plugins=plugins)
    bootstrap = Bootstrap(manifest, environ=environ)
    assert bootstrap.root() == (who if kind.root else None)
