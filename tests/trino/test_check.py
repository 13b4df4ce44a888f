"""`floe-dagster platform check` on a real Trino: as a run would use it, and what is wrong otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from pyiceberg.catalog import Catalog

from floe_dagster.cli import main
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from floe_dagster.platform.check import check_platform
from floe_dagster.platform.health import HealthCheck
from floe_dagster.schemas.artifacts import PluginRef
from tests.trino.shops import Shop, reached

ENGINE = ["engine", "engine-version", "engine-catalog", "engine-schema"]
AUDIT = "floe_audit_health"


def compute(cluster: Any, **more: Any) -> PluginRef:
    return PluginRef(type="trino", config={**reached(cluster), **more})


@pytest.fixture
def look(services: Any, home: FloeHome) -> Callable[..., dict[str, HealthCheck]]:
    def check(engine: PluginRef, *namespaces: str, **plugins: Any) -> dict[str, HealthCheck]:
        """What was seen of the engine, by name."""
        wanted = {**services.plugins(), "engines": {"plugins.compute": engine}, **plugins}
        checks = check_platform(**wanted, home=home, namespaces=namespaces or ("health",))
        assert all(check.fix for check in checks if not check.passed)
        return {check.name: check for check in checks if check.name.startswith("engine")}

    return check


def broken(checks: dict[str, HealthCheck]) -> dict[str, str]:
    return {name: f"{check.message} {check.fix}" for name, check in checks.items() if not check.passed}


@pytest.mark.core
def test_healthy(cluster: Any, look: Callable[..., Any], catalog: Catalog) -> None:
    checks = look(compute(cluster))
    assert broken(checks) == {} and list(checks) == ENGINE
    # More is said where the machine is slow.
    assert checks["engine"].message.startswith(f"{cluster.url} takes user 'floe'")
    assert checks["engine-version"].message.startswith(
        "Trino 476, workers beside the coordinator: 1, retry policy NONE"
    )
    assert checks["engine-version"].details == {"version": "476", "workers": 1, "retry_policy": "NONE"}
    assert catalog.list_tables(AUDIT) == [] and catalog.list_views(AUDIT) == []


def test_without_a_product_nothing_stays(
    cluster: Any, services: Any, home: FloeHome, catalog: Catalog
) -> None:
    checks = check_platform(**services.plugins(), engines={"plugins.compute": compute(cluster)}, home=home)
    assert all(check.passed for check in checks)
    assert not any(catalog.namespace_exists(name) for name in ("floe_check", "floe_audit_floe_check"))


def test_a_catalog_that_is_none(cluster: Any, look: Callable[..., Any]) -> None:
    found = broken(look(compute(cluster, catalog="lake")))
    assert set(found) == {"engine-catalog"}
    assert "no catalog 'lake'; it shows: floe, memory" in found["engine-catalog"]
    assert "plugins.compute.config.catalog" in found["engine-catalog"]


def test_a_catalog_that_is_not_of_iceberg(cluster: Any, look: Callable[..., Any]) -> None:
    found = broken(look(compute(cluster, catalog="memory")))
    assert set(found) == {"engine-catalog"} and "connector 'memory'" in found["engine-catalog"]


def test_a_session_property_that_trino_does_not_have(cluster: Any, look: Callable[..., Any]) -> None:
    found = broken(look(compute(cluster, session_properties={"query_max_run_tme": "1h"})))
    assert found and all("plugins.compute.config.session_properties" in fix for fix in found.values())


@pytest.mark.core
def test_another_catalog_than_the_platform_s(
    cluster: Any, look: Callable[..., Any], catalog: Catalog
) -> None:
    """The embedded one, which Trino does not have; first without, then with a schema of that name at the other side."""
    found = broken(look(compute(cluster), "elsewhere", catalog=None, storage=None))
    assert set(found) == {"engine-schema"}
    assert "does not show the schema floe_audit_elsewhere" in found["engine-schema"]
    assert "iceberg.catalog.type=rest" in found["engine-schema"]
    catalog.create_namespace("floe_audit_elsewhere")
    try:
        found = broken(look(compute(cluster), "elsewhere", catalog=None, storage=None))
        assert "is not in plugins.catalog: it is another catalog" in found["engine-schema"]
        assert catalog.list_tables("floe_audit_elsewhere") == []
    finally:
        catalog.drop_namespace("floe_audit_elsewhere")


def test_an_older_version(cluster: Any, look: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floe_dagster.platform.trino.OLDEST_VERSION", 9999)
    assert "it is Trino 476, older than 9999" in broken(look(compute(cluster)))["engine-version"]


def test_a_user_that_may_read_alone(
    services: Any, make_cluster: Callable[..., Any], look: Callable[..., Any], tmp_path_factory: Any
) -> None:
    rules: Path = tmp_path_factory.mktemp("access") / "access-control.properties"
    rules.write_text("access-control.name=read-only\n")
    reading = make_cluster(workers=0, settings={"access-control.config-files": str(rules)})
    found = broken(look(compute(reading)))
    assert set(found) == {"engine-schema"}
    assert "PERMISSION_DENIED" in found["engine-schema"]
    assert f"create, write and drop tables and views in {AUDIT}" in found["engine-schema"]


def test_a_password(
    services: Any,
    make_cluster: Callable[..., Any],
    look: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secured = make_cluster(workers=0, password=True, jwt=True)
    who = {
        "host": "127.0.0.1",
        "port": secured.state["ports"]["https"],
        "http_scheme": "https",
        "certificate_file": str(secured.certificate),
        "user": "floe",
        "password": {"env": "TRINO_PASSWORD"},
    }
    monkeypatch.setenv("TRINO_PASSWORD", secured.environment["TRINO_PASSWORD"])
    checks = look(compute(secured, **who))
    assert broken(checks) == {}
    assert secured.environment["TRINO_PASSWORD"] not in str(checks)
    monkeypatch.setenv("TRINO_PASSWORD", "hush-marker")
    found = broken(look(compute(secured, **who)))
    assert set(found) == {"engine"} and "does not accept user 'floe'" in found["engine"]
    assert "hush" not in found["engine"]


def test_the_command_and_the_check_in_dagster_see_it(
    on_trino: Shop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def seen() -> tuple[int, list[str]]:
        code = main(
            ["platform", "check", "--manifest", str(manifest), "--namespace", "shop", "--format", "json"]
        )
        return code, [c["name"] for c in json.loads(capsys.readouterr().out)["checks"] if not c["passed"]]

    def in_dagster() -> Any:
        result = compile_product(on_trino.product, home=on_trino.home)
        assert result.bundle is not None, result.findings
        made = build_product_definitions(result.bundle, product_dir=on_trino.product, home=on_trino.home)
        outcome = made.resolve_job_def("shop_platform_check").execute_in_process(
            instance=on_trino.instance, raise_on_error=False
        )
        (evaluation,) = outcome.get_asset_check_evaluations()
        return evaluation

    manifest = tmp_path / "manifest.yaml"
    assert seen() == (0, [])
    healthy = in_dagster()
    assert healthy.passed
    assert {record.data["check"] for record in healthy.metadata["checks"].records} >= set(ENGINE)
    document = yaml.safe_load(manifest.read_text())
    document["plugins"]["compute"]["config"]["catalog"] = "memory"
    manifest.write_text(yaml.safe_dump(document, sort_keys=False))
    assert seen() == (1, ["engine-catalog"])
    ill = in_dagster()
    assert not ill.passed and ill.severity == dg.AssetCheckSeverity.ERROR
    assert "connector 'memory'" in (ill.description or "")
