"""The commands that `floe-dagster run` ends with work where they are read."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from floe_dagster.cli.main import build_parser
from floe_dagster.cli.run_report import next_steps
from floe_dagster.cli.terminal import product_dirs


@pytest.fixture
def product(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["floe-dagster"])
    folder = tmp_path / "my work" / "products" / "shop"
    (folder / "models").mkdir(parents=True)
    (folder / "floe.yaml").write_text("platform: {manifest: ../../manifest.yaml}\n")
    return folder


def commands(product: Path) -> list[str]:
    return [line.partition(":")[2].strip() for line in next_steps("shop.orders", product)]


@pytest.mark.parametrize("where", ["../..", ".", "..", "models", "../../.."])
def test_the_table_is_found_from_where_the_command_was_typed(
    product: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(product / where)
    show, _graph = commands(product)
    options = build_parser().parse_args(shlex.split(show)[1:])
    folders = [options.product_dir] if options.product_dir else product_dirs([])
    assert [Path(folder).resolve() for folder in folders] == [product]
    assert (options.product_dir is None) is (where in ("../..", ".", ".."))


def test_the_graph_is_served_by_what_is_there(product: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = product.parents[1]
    monkeypatch.chdir(root)
    monkeypatch.setenv("DAGSTER_HOME", str(root / "dagster"))
    serve = "dagster dev"
    assert commands(product)[1].startswith(
        f"floe-dagster compile products/shop --generate-definitions && {serve} -f products/shop/definitions.py"
    )
    (product / "definitions.py").touch()
    assert commands(product)[1].startswith(f"{serve} -f products/shop/definitions.py, then open http://")
    (root / "workspace.yaml").write_text("load_from: []\n")
    assert commands(product)[1].startswith(f"{serve} -f products/shop/definitions.py, then")
    (root / "workspace.yaml").write_text("load_from: [{python_module: {module_name: shop.definitions}}]\n")
    assert commands(product)[1].startswith(f"{serve} -w workspace.yaml, then")
    # Of runs that are kept in a folder which nobody named, `dagster dev` has to be told.
    monkeypatch.delenv("DAGSTER_HOME")
    assert commands(product)[1].startswith(f"DAGSTER_HOME='{root}/.floe/dagster' {serve} -w")
    monkeypatch.setenv("DAGSTER_HOME", str(root / "dagster"))
    # `make dev` serves the environment that `make` made, and no other.
    (root / "Makefile").write_text("all:\ndev:\n\tdagster dev\n")
    assert commands(product)[1].startswith(f"{serve} -w workspace.yaml")
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    assert commands(product)[1].startswith("make dev, then")
