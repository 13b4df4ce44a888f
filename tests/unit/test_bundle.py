"""Bundles: what is written is read back; what no compilation writes is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floe_dagster.compilation.bundle import HEADER, Bundle, BundleError, write_bundle
from floe_dagster.home import FloeHome
from floe_dagster.schemas.product_index_json import INDEX_VERSION, index_to_json
from tests.index import asset, product_index

INDEX = product_index([asset("model.shop.orders")])
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    sources = tmp_path / "sources"
    (sources / "shop" / "models").mkdir(parents=True)
    (sources / "shop" / "models" / "orders.sql").write_text("select 1")
    write_bundle(
        tmp_path / "bundle.zip",
        digest=DIGEST,
        slug="shop",
        product_name="shop",
        documents={
            "manifest.json": b'{"nodes": {}}',
            "asset_index.json": index_to_json(INDEX),
            "report.json": b"{}",
        },
        sources_root=sources,
        sources=["shop/models/orders.sql"],
        project="shop",
    )
    return tmp_path / "bundle.zip"


def rewritten(path: Path, header: dict[str, Any] | None = None, **files: bytes) -> Path:
    """Write the archive again with other content."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content |= {name.replace("__", "/"): data for name, data in files.items()}
    if header:
        content[HEADER] = json.dumps({**json.loads(content[HEADER]), **header}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_it_is_read_back_and_unpacked_once(bundle: Path, home: FloeHome) -> None:
    opened = Bundle.open(bundle)
    assert (opened.digest, opened.slug, opened.index()) == (DIGEST, "shop", INDEX)
    unpacked = opened.unpack(home)
    model = unpacked.project_dir / "models" / "orders.sql"
    assert model.read_text() == "select 1"
    before = model.stat().st_ino
    assert opened.unpack(home) == unpacked and model.stat().st_ino == before


def test_the_same_content_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    before = bundle.read_bytes()
    write_bundle(
        bundle,
        digest=DIGEST,
        slug="shop",
        product_name="shop",
        documents={
            "report.json": b"{}",
            "asset_index.json": index_to_json(INDEX),
            "manifest.json": b'{"nodes": {}}',
        },
        sources_root=tmp_path / "sources",
        sources=["shop/models/orders.sql"],
        project="shop",
    )
    assert bundle.read_bytes() == before


@pytest.mark.parametrize(
    "header",
    [
        {"digest": "sha256:../../../tmp/x"},
        {"slug": "../shop"},
        {"project": "/etc"},
        {"project": "a/../../b"},
        {"digest": None},
        {"format": 99},
    ],
)
def test_a_header_that_no_compilation_writes(bundle: Path, header: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="Compile the product again"):
        Bundle.open(rewritten(bundle, header))


def test_an_archive_does_not_write_outside_of_its_folder(bundle: Path, home: FloeHome) -> None:
    opened = Bundle.open(rewritten(bundle, None, **{"sources__..__..__escaped.sql": b"select 2"}))
    with pytest.raises(BundleError, match="outside"):
        opened.unpack(home)
    assert not list(home.path.rglob("escaped.sql")) and not list(home.path.parent.glob("escaped.sql"))


def test_a_document_that_is_damaged(bundle: Path) -> None:
    opened = Bundle.open(
        rewritten(bundle, None, **{"asset_index.json": b"{", "compiled_artifacts.json": b"[]"})
    )
    with pytest.raises(BundleError, match=r"asset_index\.json is damaged"):
        opened.index()
    with pytest.raises(BundleError, match="no JSON object"):
        opened.artifact()


def test_an_index_of_a_later_version_is_refused_with_words(bundle: Path) -> None:
    later = json.dumps({"version": INDEX_VERSION + 1}).encode()
    with pytest.raises(BundleError) as refused:
        Bundle.open(rewritten(bundle, None, **{"asset_index.json": later})).index()
    assert str(refused.value) == (
        f"{bundle}: asset_index.json has version {INDEX_VERSION + 1}, and this floe-dagster reads versions up to "
        f"{INDEX_VERSION}. Upgrade floe-dagster, or compile the product with this version."
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_damage_is_a_bundle_error(bundle: Path, home: FloeHome, data: st.DataObject) -> None:
    whole = bundle.read_bytes()
    broken = bytearray(whole)
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=5)):
        broken[position] ^= data.draw(st.integers(1, 255))
    copy = bundle.with_name("broken.zip")
    copy.write_bytes(bytes(broken[: data.draw(st.integers(0, len(whole)))]))
    try:
        opened = Bundle.open(copy)
        opened.index()
        opened.report()
        opened.unpack(FloeHome(home.path / copy.stem))
    except BundleError:
        pass
