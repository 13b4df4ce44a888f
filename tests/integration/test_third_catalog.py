"""Another type of catalog is one more module and its line in the registry: a product is published to one."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from pyiceberg.catalog import load_catalog

from tests import packages
from tests.conftest import MANIFEST
from tests.packages import with_kind

CATALOG_TYPE = '''\
"""A catalog in a folder, which PyIceberg opens by properties."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from floe_dagster.schemas.base import Section
from floe_dagster.schemas.catalog_types.catalog_type import CatalogType
from floe_dagster.schemas.secrets import Secret


class CellarConfig(Section):
    folder: str = Field(description="Where it lies.")
    key: Secret = Field(description="What opens it, by reference.")


class CellarCatalog(Section):
    type: Literal["cellar"] = Field(description="Catalog.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: CellarConfig = Field(description="Settings of the cellar.")


def open_cellar(config: Mapping[str, Any], settings: Mapping[str, Any], storage: Any, home: Any) -> Any:
    from pyiceberg.catalog import load_catalog

    assert config["key"] == "sesame"
    folder = Path(config["folder"])
    folder.mkdir(exist_ok=True)
    return load_catalog(
        "cellar",
        type="sql",
        uri=f"sqlite:///{folder}/cellar.db",
        warehouse=storage.warehouse(settings, home),
        **storage.file_io(settings, vended=False),
    )


CELLAR = CatalogType(
    name="cellar",
    title="Cellar",
    plugin=CellarCatalog,
    opener="floe_dagster.schemas.catalog_types.cellar:open_cellar",
)
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with floe-dagster that has one module and one line more."""
    return with_kind(
        tmp_path / "package",
        "schemas/catalog_types/cellar.py",
        CATALOG_TYPE,
        "schemas/catalog_types/__init__.py",
        ("(SQL, REST, POLARIS)", "(SQL, REST, POLARIS, CELLAR)"),
        (
            "from floe_dagster.schemas.catalog_types.polaris import",
            "from floe_dagster.schemas.catalog_types.cellar import CELLAR\nfrom floe_dagster.schemas.catalog_types.polaris import",
        ),
    )


def floe(package: Path, product: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return packages.floe(package, product, *arguments, CELLAR_KEY="sesame")


def configure(shop: Path, **config: object) -> None:
    plugins = {"catalog": {"type": "cellar", "config": {"key": {"env": "CELLAR_KEY"}, **config}}}
    (shop.parent / "manifest.yaml").write_text(MANIFEST + yaml.safe_dump({"plugins": plugins}))


@pytest.mark.slow
def test_a_product_is_published_to_it_and_shown_from_it(package: Path, shop: Path) -> None:
    cellar = shop.parent / "cellar"
    configure(shop, folder=str(cellar))
    done = floe(package, shop, "run", shop)
    assert done.returncode == 0, done.stdout + done.stderr
    catalog = load_catalog("cellar", type="sql", uri=f"sqlite:///{cellar}/cellar.db")
    assert catalog.list_tables("shop") == [("shop", "daily"), ("shop", "orders")]
    assert catalog.load_table(("shop", "daily")).scan().to_arrow().to_pylist() == [{"n": 1}]
    assert not (shop.parent / "home" / "catalog.db").exists()
    shown = floe(package, shop, "show", "shop.daily", "--format", "json", "--product-dir", shop)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["rows"] == [{"n": 1}]
    assert "sesame" not in done.stdout + done.stderr


def test_its_settings_are_told_and_the_platform_is_looked_at_like_that_of_others(
    package: Path, shop: Path
) -> None:
    configure(shop)
    refused = floe(package, shop, "compile", shop)
    assert refused.returncode == 2
    assert "plugins.catalog.config.folder" in refused.stdout + refused.stderr
    configure(shop, folder=str(shop.parent / "cellar"))
    manifest = shop.parent / "manifest.yaml"
    seen = floe(package, shop, "platform", "check", "--manifest", manifest, "--format", "json")
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert [check["name"] for check in json.loads(seen.stdout)["checks"]] == [
        "credentials",
        "namespace",
        "storage",
    ]
    made = floe(package, shop, "platform", "bootstrap", "--manifest", manifest, "--format", "json")
    (step,) = json.loads(made.stdout)["steps"]
    assert (step["what"], step["outcome"]) == ("catalog cellar", "skipped")
