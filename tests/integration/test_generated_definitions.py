"""`floe-dagster compile --generate-definitions` makes a product's folder a code location."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import dagster as dg
import pytest

from floe_dagster.cli import main
from floe_dagster.definitions.resources import DbtResource


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))


def test_what_is_generated_is_a_code_location(
    shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(shop), "--generate-definitions"]) == 0
    assert f"wrote {shop}/definitions.py" in capsys.readouterr().err
    monkeypatch.syspath_prepend(shop.parent)
    try:
        defs = importlib.import_module("shop.definitions").defs
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
            del sys.modules[name]
    assert isinstance(defs, dg.Definitions)
    models = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert {"shop/orders", "shop/daily"} <= models
    assert isinstance((defs.resources or {})["shop_dbt"], DbtResource)


def test_what_somebody_wrote_is_left_alone(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = "from floe_dagster import load_product_definitions\n\ndefs = load_product_definitions(__file__)  # mine\n"
    (shop / "definitions.py").write_text(own)
    for _attempt in range(2):
        assert main(["compile", str(shop), "--generate-definitions"]) == 0
        assert "holds something of its own and was left as it is" in capsys.readouterr().err
    assert (shop / "definitions.py").read_text() == own and (shop / "__init__.py").exists()


def test_nothing_is_generated_for_a_product_that_does_not_compile(shop: Path) -> None:
    (shop / "models" / "daily.sql").write_text("select * from {{ ref('nobody') }}\n")
    assert main(["compile", str(shop), "--generate-definitions"]) != 0
    assert not (shop / "definitions.py").exists()
