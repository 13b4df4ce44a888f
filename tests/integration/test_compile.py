"""Compiling a product with the real dbt."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from floe_dagster.cli import main
from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.pipeline import compile_product, validate_product
from floe_dagster.home import FloeHome


def test_a_product_compiles_and_an_unchanged_one_is_left_alone(shop: Path, home: FloeHome) -> None:
    first = compile_product(shop, home=home)
    assert first.findings == [] and not first.unchanged
    assert [stage.name for stage in first.stages] == [
        "LOAD",
        "VALIDATE",
        "RESOLVE",
        "ENFORCE",
        "COMPILE",
        "GENERATE",
    ]
    assert first.artifact is not None and first.artifact.transforms is not None
    assert [model.name for model in first.artifact.transforms.models] == ["daily", "orders"]
    again = compile_product(shop, home=home)
    assert again.unchanged and again.digest == first.digest and again.stages == []
    assert again.summary["digest"] == first.digest


def test_the_artifact_names_nothing_of_the_machine(shop: Path, home: FloeHome, tmp_path: Path) -> None:
    result = compile_product(shop, home=home)
    assert result.bundle is not None
    for name in ("compiled_artifacts.json", "manifest.json", "asset_index.json"):
        assert str(tmp_path) not in result.bundle.read(name).decode()


def test_there_and_back_again_gives_the_first_digest(shop: Path, home: FloeHome) -> None:
    model = shop / "models" / "orders.sql"
    before, text = compile_product(shop, home=home), model.read_text()
    model.write_text("select 2 as id, 'open' as status\n")
    changed = compile_product(shop, home=home)
    model.write_text(text)
    back = compile_product(shop, home=home)
    assert changed.digest != before.digest == back.digest


@pytest.mark.parametrize(
    "profile", ["", "profile: default\n", "profile: no-such-profile\n", "profile: shop\n"]
)
def test_the_profile_of_a_project_decides_nothing(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    """Whatever profile a project names, and whatever profiles its user has: dbt's `deps`, `parse` and `build` get ours."""
    folder = tmp_path / "user" / ".dbt"
    folder.mkdir(parents=True)
    (folder / "profiles.yml").write_text("default: {target: x, outputs: {x: {type: nothing}}}\n")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.setenv("DBT_PROFILES_DIR", str(folder))
    monkeypatch.setenv("DBT_PROFILE", "default")
    (shop / "dbt_project.yml").write_text(f"name: shop\n{profile}models: {{+materialized: table}}\n")
    (shop / "packages.yml").write_text("packages: []\n")
    (shop / "models" / "target.sql").write_text(
        "select '{{ target.profile_name }} {{ target.name }}' as target\n"
    )
    (shop / "models" / "target.yml").write_text(
        "models: [{name: target, description: '{{ target.profile_name }} {{ target.type }}'}]\n"
    )
    result = validate_product(shop)
    assert result.findings == []
    assert result.index.assets[-1].description == "shop duckdb"


def test_a_broken_model_is_named_and_the_last_good_bundle_stays(shop: Path, home: FloeHome) -> None:
    good = compile_product(shop, home=home)
    (shop / "models" / "orders.sql").write_text("select {{ ref('nothing') }}\n")
    bad = compile_product(shop, home=home)
    assert bad.exit_code == 2 and bad.bundle_path is None
    assert any(f.file == "shop/models/orders.sql" for f in bad.findings if f.severity == "error")
    assert good.bundle_path is not None and Bundle.open(good.bundle_path).digest == good.digest


def test_a_violation_blocks_under_strict_and_shows_under_warn(
    shop: Path, home: FloeHome, tmp_path: Path
) -> None:
    manifest = tmp_path / "manifest.yaml"
    text = manifest.read_text()
    rules = "governance: {policy_enforcement_level: %s, naming: {pattern: kimball}}\n"
    manifest.write_text(text + rules % "strict")
    strict = compile_product(shop, home=home)
    assert strict.exit_code == 1 and {f.model for f in strict.findings} == {"daily", "orders"}
    assert all(f.file and f.line and f.fix for f in strict.findings)
    manifest.write_text(text + rules % "warn")
    warn = compile_product(shop, home=home)
    assert warn.exit_code == 0 and [f.severity for f in warn.findings] == ["warning", "warning"]
    manifest.write_text(text + rules % "off")
    assert compile_product(shop, home=home).findings == []


def test_transforms_and_project_must_agree(shop: Path, home: FloeHome) -> None:
    spec = shop / "floe.yaml"
    spec.write_text(
        spec.read_text() + "transforms:\n  - name: order\n  - {name: orders, dependsOn: [daily]}\n"
    )
    result = compile_product(shop, home=home)
    found = {finding.code: finding for finding in result.findings}
    assert found["transform-without-model"].fix == "Did you mean 'orders'?"
    assert found["transform-without-model"].line == 6
    assert "shop/models/orders.sql does not read it" in found["contradicted-depends-on"].message
    assert found["model-without-transform"].file == "shop/models/daily.sql"
    assert result.exit_code == 2


def test_validate_finds_the_same_and_writes_nothing(shop: Path, tmp_path: Path) -> None:
    (shop / "models" / "orders.sql").write_text("select {{ ref('nothing') }}\n")
    before = sorted(path for path in tmp_path.rglob("*"))
    assert validate_product(shop).exit_code == 2
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_validating_documents_imports_neither_dbt_nor_dagster(shop: Path) -> None:
    code = (
        "import sys; from floe_dagster.cli import main; "
        f"code = main(['validate', '--documents', {str(shop)!r}]); "
        "loaded = [m for m in ('dagster', 'dbt', 'duckdb', 'pyiceberg') if m in sys.modules]; "
        "assert not loaded, loaded; raise SystemExit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _compile(shop: str, home: str) -> None:
    compile_product(Path(shop), home=FloeHome(Path(home)))


def test_two_compilers_at_once_leave_one_good_bundle(shop: Path, home: FloeHome) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_compile, args=(str(shop), str(home.path))) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    (bundle,) = home.state_dir("shop").glob("*.zip")
    assert Bundle.open(bundle).index().product.slug == "shop"


def test_kill_in_the_middle_leaves_the_last_good_bundle(shop: Path, home: FloeHome) -> None:
    good = compile_product(shop, home=home)
    (shop / "models" / "orders.sql").write_text("select 3 as id, 'x' as status\n")
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; from pathlib import Path; "
               "from floe_dagster.home import FloeHome; from floe_dagster.compilation.pipeline import compile_product; "
               f"compile_product(Path({str(shop)!r}), home=FloeHome(Path({str(home.path)!r})))"]  # fmt: skip
    for delay in (0.3, 1.0):
        worker = subprocess.Popen(command, start_new_session=True)
        time.sleep(delay)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        bundles = list(home.state_dir("shop").glob("*.zip"))
        assert good.bundle_path in bundles
        assert all(Bundle.open(bundle).index() for bundle in bundles)
    assert compile_product(shop, home=home).exit_code == 0


def test_command_line(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    assert main(["compile", str(shop), "--generate-definitions", "--format", "json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["product"] == "shop" and not report["unchanged"]
    artifact = json.loads((shop / "target" / "compiled_artifacts.json").read_text())
    assert artifact["version"] == "0.10.0" and artifact["metadata"]["source_hash"] == report["digest"]
    assert json.loads((shop / "target" / "manifest.json").read_text())["metadata"]["project_name"] == "shop"
    assert "load_product_definitions(__file__)" in (shop / "definitions.py").read_text()
    stats = {path: path.stat().st_mtime_ns for path in (shop / "target").iterdir()}
    assert main(["compile", str(shop)]) == 0
    assert "unchanged" in capsys.readouterr().out
    assert stats == {path: path.stat().st_mtime_ns for path in (shop / "target").iterdir()}
    assert main(["compile", str(shop), "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "shop" / "manifest.json").exists()
    assert main(["compile", str(tmp_path / "nowhere")]) == 2
    assert main(["explain", str(shop)]) == 0


@pytest.mark.parametrize("name", ["customer_360", "iot_telemetry", "financial_risk"])
def test_the_shipped_products_follow_their_rules(
    name: str, shipped_product: Callable[[str], Path], home: FloeHome
) -> None:
    result = compile_product(shipped_product(name), home=home)
    assert result.findings == []


def test_governance_of_the_demo_manifest_reaches_the_artifact(
    shipped_product: Callable[[str], Path], home: FloeHome
) -> None:
    product = shipped_product("customer_360")
    result = compile_product(product, manifest=product.parent.parent / "manifests" / "demo.yaml", home=home)
    assert result.artifact is not None and result.artifact.governance is not None
    governance, observability = result.artifact.governance, result.artifact.observability
    assert governance.policy_enforcement_level == "warn"
    assert governance.audit_logging == "enabled"
    assert governance.data_retention_days == 1
    assert observability.telemetry.otlp_endpoint == "http://floe-platform-otel-collector:4317"
    assert observability.lineage_transport == "http"
    assert observability.telemetry.resource_attributes is not None
    assert observability.telemetry.resource_attributes.service_name == "customer-360"
    catalog = result.artifact.plugins.catalog if result.artifact.plugins else None
    assert catalog is not None and catalog.config is not None
    assert catalog.config["oauth2"]["client_secret"] == {"env": "POLARIS_CLIENT_SECRET"}
