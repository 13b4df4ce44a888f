"""The digest of a product's sources, and the stat cache that makes an unchanged look cheap."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from pathlib import Path

import pytest

from floe_dagster.compilation import sources
from floe_dagster.compilation.sources import source_state
from floe_dagster.home import FloeHome


def digest(shop: Path, home: FloeHome) -> str:
    return source_state(shop, home=home).digest


def age(folder: Path) -> None:
    """Make everything old enough for the cache to trust its time of change."""
    an_hour_ago = time.time() - 3600
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (an_hour_ago, an_hour_ago))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read to be hashed."""
    seen: list[str] = []
    genuine = hashlib.file_digest

    def counted(file: object, name: str) -> object:
        seen.append(Path(file.name).name)  # type: ignore[attr-defined]
        return genuine(file, name)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counted)
    monkeypatch.setattr(sources, "_memory", {})
    return seen


@pytest.mark.parametrize("fresh_process", [False, True])
def test_an_unchanged_look_reads_nothing(
    shop: Path, home: FloeHome, reads: list[str], fresh_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(shop.parent)
    first = digest(shop, home)
    assert {"floe.yaml", "dbt_project.yml", "orders.sql", "daily.sql", "manifest.yaml"} <= set(reads)
    reads.clear()
    if fresh_process:
        monkeypatch.setattr(sources, "_memory", {})
    assert digest(shop, home) == first and reads == []


def test_only_the_changed_file_is_read(shop: Path, home: FloeHome, reads: list[str]) -> None:
    age(shop.parent)
    first = digest(shop, home)
    reads.clear()
    (shop / "models" / "orders.sql").write_text("select 2 as id, 'paid' as status\n")
    assert digest(shop, home) != first and reads == ["orders.sql"]


def test_a_change_within_the_same_tick_of_the_clock_is_seen(shop: Path, home: FloeHome) -> None:
    model = shop / "models" / "orders.sql"
    first = digest(shop, home)
    found = model.stat()
    model.write_text(model.read_text().replace("1", "2"))
    os.utime(model, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert model.stat().st_size == found.st_size and digest(shop, home) != first


@pytest.mark.parametrize(
    "change",
    [
        lambda shop: (shop / "models" / "new.sql").write_text("select 1"),
        lambda shop: (shop / "models" / "daily.sql").unlink(),
        lambda shop: (shop / "models" / "daily.sql").rename(shop / "models" / "weekly.sql"),
        lambda shop: (
            (shop / "models" / "deep" / "er").mkdir(parents=True)
            or (shop / "models" / "deep" / "er" / "x.sql").write_text("select 1")
        ),
        lambda shop: (shop / "packages.yml").write_text("packages: []\n"),
        lambda shop: (shop / "floe.yaml").write_text("not: {closed\n"),
        lambda shop: (shop / "floe.yaml").write_bytes(b"\xff\xfe\x00"),
        lambda shop: (shop / "floe.yaml").unlink(),
        lambda shop: (shop.parent / "manifest.yaml").unlink(),
        lambda shop: (shop.parent / "manifest.yaml").write_text("scope: enterprise\n"),
    ],
)
def test_what_decides_the_outcome_changes_the_digest_and_back(
    shop: Path, home: FloeHome, change: object
) -> None:
    kept = shop.parent.parent / f"{shop.parent.name}-kept"
    shutil.copytree(shop.parent, kept)
    before = digest(shop, home)
    change(shop)  # type: ignore[operator]
    assert digest(shop, home) != before
    shutil.rmtree(shop)
    shutil.copytree(kept / shop.name, shop)
    shutil.copy(kept / "manifest.yaml", shop.parent)
    assert digest(shop, home) == before


@pytest.mark.parametrize("name", ["target/manifest.json", "logs/dbt.log", "models/.orders.sql.swp", "README"])
def test_what_decides_nothing_leaves_the_digest(shop: Path, home: FloeHome, name: str) -> None:
    before = digest(shop, home)
    (shop / name).parent.mkdir(exist_ok=True)
    (shop / name).write_text("anything")
    assert digest(shop, home) == before


def test_the_digest_does_not_depend_on_the_place(shop: Path, home: FloeHome, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(shop, elsewhere / "shop")
    shutil.copy(shop.parent / "manifest.yaml", elsewhere)
    assert digest(elsewhere / "shop", home) == digest(shop, home)


def test_the_whole_chain_counts(shop: Path, home: FloeHome) -> None:
    manifest, parent = shop.parent / "manifest.yaml", shop.parent / "enterprise.yaml"
    parent.write_text(manifest.read_text())
    manifest.write_text(manifest.read_text() + "scope: domain\nparent_manifest: enterprise.yaml\n")
    before = digest(shop, home)
    parent.write_text(parent.read_text() + "# a comment\n")
    assert digest(shop, home) != before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"files": 3}', b"\x00" * 100])
def test_a_damaged_cache_is_the_same_as_none(
    shop: Path, home: FloeHome, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digest(shop, home)
    cached = list((home.cache_dir / "sources").glob("*.json"))
    assert len(cached) == 1
    cached[0].write_bytes(content)
    monkeypatch.setattr(sources, "_memory", {})
    assert digest(shop, home) == before


def test_links_that_go_round_in_circles_end(shop: Path, home: FloeHome) -> None:
    (shop / "models" / "again").symlink_to(shop / "models")
    (shop / "models" / "self").symlink_to("self")
    assert digest(shop, home) == digest(shop, home)
