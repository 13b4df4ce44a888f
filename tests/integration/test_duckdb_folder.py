"""The DuckDB file lies where the manifest says, in a folder that is made when it is missing."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from floe_dagster.cli import main
from tests.conftest import MANIFEST


def _write_manifest(shop: Path, path: str) -> None:
    compute = f"plugins: {{compute: {{type: duckdb, config: {{path: '{path}'}}}}}}\n"
    (shop.parent / "manifest.yaml").write_text(MANIFEST + compute)


@pytest.mark.slow
@pytest.mark.parametrize("absolute", [False, True], ids=["below FLOE_HOME", "elsewhere"])
def test_the_folder_is_made(
    absolute: bool, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "volume" if absolute else tmp_path / "home" / "duckdb"
    _write_manifest(shop, f"{f'{folder}/' if absolute else ''}by/team/{{product_slug}}.duckdb")
    assert main(["run", str(shop)]) == 0
    with duckdb.connect(str(folder / "by" / "team" / "shop.duckdb"), read_only=True) as con:
        assert con.sql("select n from main.daily").fetchall() == [(1,)]


def test_a_folder_that_cannot_be_made_is_named(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    (tmp_path / "taken").write_text("a file")
    _write_manifest(shop, f"{tmp_path}/taken/{{product_slug}}.duckdb")
    assert main(["run", str(shop)]) == 1
    told = capsys.readouterr().err
    assert "the folder of the DuckDB file" in told and "plugins.compute.config.path" in told
