"""`floe-dagster platform bootstrap` and `check` against servers that are up, down, slow, wrong."""

from __future__ import annotations

import io
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from minio.error import S3Error

from deploy.services import control
from floe_dagster.cli import main
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.definitions.component import FloeProduct
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from floe_dagster.platform.bootstrap import STATE_KEYS, Bootstrap
from floe_dagster.platform.check import check_platform
from floe_dagster.platform.object_store import ObjectStore
from floe_dagster.platform.waiting import PlatformError
from floe_dagster.schemas.manifest import PlatformManifest
from tests.services.conftest import Services, Shop
from tests.services.polaris_contract import PolarisContract
from tests.services.proxy import FaultProxy

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture(params=["take", "refuse"])
def polaris(request: pytest.FixtureRequest) -> Iterator[PolarisContract]:
    made = PolarisContract(request.param)
    yield made
    made.close()
    assert made.violations == []


def polaris_manifest(services: Services, polaris: PolarisContract, **oauth2: Any) -> PlatformManifest:
    document = json.loads(json.dumps(services.manifest))
    document["plugins"]["catalog"] = {
        "type": "polaris",
        "config": {
            "uri": f"{polaris.url}/api/catalog",
            "warehouse": "floe",
            "oauth2": {"client_id": "floe-etl", "client_secret": {"env": "POLARIS_CLIENT_SECRET"}, **oauth2},
        },
    }
    return PlatformManifest.model_validate(document)


def environment(services: Services, polaris: PolarisContract, **more: str) -> dict[str, str]:
    root = {"POLARIS_ROOT_CLIENT_ID": polaris.root[0], "POLARIS_ROOT_CLIENT_SECRET": polaris.root[1]}
    return {**services.environment, **root, "POLARIS_CLIENT_SECRET": SECRET, **more}


def outcomes(steps: list[Any]) -> set[str]:
    return {step.outcome for step in steps}


def test_an_empty_polaris_becomes_usable_with_the_least_rights(
    services: Services, polaris: PolarisContract, tmp_path: Path
) -> None:
    manifest, env = polaris_manifest(services, polaris), environment(services, polaris)
    preview = Bootstrap(manifest, environ=env, dry_run=True).run()
    assert "would make" in outcomes(preview) and not {"made", "changed"} & outcomes(preview)
    assert polaris.catalogs == {} and polaris.principals == {}

    credentials = tmp_path / "credentials"
    steps = Bootstrap(manifest, environ=env, credentials_file=credentials).run()
    assert "made" in outcomes(steps)
    catalog = polaris.catalogs["floe"]
    assert catalog["storageConfigInfo"]["allowedLocations"] == [f"s3://{control.BUCKET}/warehouse"]
    assert catalog["storageConfigInfo"]["stsUnavailable"] is False
    assert polaris.grants == {
        ("floe", "floe_writer"): [{"type": "catalog", "privilege": "CATALOG_MANAGE_CONTENT"}]
    }
    assert polaris.assigned == {"floe-etl": {"floe-etl_role"}}
    assert polaris.given == {("floe-etl_role", "floe"): {"floe_writer"}}
    if polaris.resets == "take":
        assert not credentials.exists()
        assert polaris.principals["floe-etl"] == {"clientId": "floe-etl", "secret": SECRET}
    else:
        assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
        lines = dict(line.split("=", 1) for line in credentials.read_text().splitlines())
        manifest = polaris_manifest(services, polaris, client_id="${POLARIS_CLIENT_ID}")
        env |= lines

    polaris.calls.clear()
    again = Bootstrap(manifest, environ=env, credentials_file=credentials).run()
    assert outcomes(again) == {"there"}
    if polaris.calls:
        assert {method for method, path in polaris.calls if "/management/" in path} == {"GET"}
    said = json.dumps([(step.what, step.note) for step in [*steps, *again]])
    assert SECRET not in said and polaris.root[1] not in said


def test_credentials_without_a_place_to_go_are_an_error(services: Services) -> None:
    polaris = PolarisContract("refuse")
    with pytest.raises(PlatformError, match="--credentials-file"):
        Bootstrap(polaris_manifest(services, polaris), environ=environment(services, polaris)).run()
    polaris.close()


@pytest.mark.parametrize(
    "place", ["/catalogs", "/principals", "/principal-roles", "/grants", "/catalog-roles/floe"]
)
def test_it_can_be_run_again_after_any_failure(services: Services, place: str) -> None:
    polaris = PolarisContract()
    manifest, env = polaris_manifest(services, polaris), environment(services, polaris)
    polaris.fail_at = place
    with pytest.raises(PlatformError, match="injected"):
        Bootstrap(manifest, environ=env).run()
    polaris.fail_at = None
    Bootstrap(manifest, environ=env).run()
    assert outcomes(Bootstrap(manifest, environ=env).run()) == {"there"}
    assert polaris.violations == []
    polaris.close()


def test_a_product_of_its_own_gets_its_namespace_alone(services: Services) -> None:
    polaris = PolarisContract()
    manifest = polaris_manifest(services, polaris)
    Bootstrap(manifest, environ=environment(services, polaris), namespaces=("financial_risk",)).run()
    assert polaris.namespaces == {"financial_risk"}
    assert polaris.grants == {
        ("floe", "floe_financial_risk_writer"): [
            {"type": "namespace", "namespace": ["financial_risk"], "privilege": "CATALOG_MANAGE_CONTENT"}
        ]
    }
    assert polaris.violations == []
    polaris.close()


@pytest.mark.parametrize("further", [False, True], ids=["default", "further"])
def test_on_trino_it_gets_the_namespace_that_is_built_in_too(services: Services, further: bool) -> None:
    polaris = PolarisContract()
    document = polaris_manifest(services, polaris).model_dump(mode="json", by_alias=True, exclude_none=True)
    trino = {"type": "trino", "config": {"host": "trino.invalid", "catalog": "floe"}}
    document["plugins"] |= {"additional_compute": [trino]} if further else {"compute": trino}
    manifest = PlatformManifest.model_validate(document)
    Bootstrap(manifest, environ=environment(services, polaris), namespaces=("financial_risk",)).run()
    (grants,) = polaris.grants.values()
    assert {grant["namespace"][0] for grant in grants} == {"financial_risk", "floe_audit_financial_risk"}
    assert polaris.namespaces == {"financial_risk", "floe_audit_financial_risk"}
    assert polaris.violations == []
    polaris.close()


def test_a_root_that_is_refused_is_named(services: Services) -> None:
    polaris = PolarisContract()
    env = environment(services, polaris, POLARIS_ROOT_CLIENT_SECRET="wrong-root-secret")
    with pytest.raises(PlatformError, match="root") as refused:
        Bootstrap(polaris_manifest(services, polaris), environ=env).run()
    assert "wrong-root-secret" not in str(refused.value)
    polaris.close()


def test_a_polaris_of_somebody_else_is_left_as_it_is(services: Services) -> None:
    polaris = PolarisContract()
    manifest, env = polaris_manifest(services, polaris), environment(services, polaris)
    nobody = {key: value for key, value in env.items() if not key.startswith("POLARIS_ROOT_")}
    with pytest.raises(PlatformError, match="POLARIS_ROOT_CLIENT_ID"):
        Bootstrap(manifest, environ=nobody).run()
    Bootstrap(manifest, environ=env).run()
    [catalog] = [step for step in Bootstrap(manifest, environ=nobody).run() if "catalog" in step.what]
    assert catalog.outcome == "skipped" and "nobody is named" in catalog.note
    polaris.close()


def test_minio_gets_bucket_policy_and_user_once(services: Services) -> None:
    document = json.loads(json.dumps(services.manifest))
    document["plugins"]["storage"]["config"] |= {"bucket": "other-bucket", "access_key_id": "other-user"}
    manifest = PlatformManifest.model_validate(document)
    env = {**services.environment, "MINIO_SECRET_ACCESS_KEY": "other-secret-key"}
    assert "would make" in outcomes(Bootstrap(manifest, environ=env, dry_run=True).run())
    assert not services.store().bucket_exists("other-bucket")
    steps = Bootstrap(manifest, environ=env).run()
    assert [step.outcome for step in steps[:4]] == ["made"] * 4
    assert outcomes(Bootstrap(manifest, environ=env).run()) == {"there", "skipped"}
    # A rotated secret is set, and nothing else.
    rotated = Bootstrap(manifest, environ={**env, "MINIO_SECRET_ACCESS_KEY": "rotated-secret-key"}).run()
    assert [step.what for step in rotated if step.outcome == "changed"] == ["secret of user other-user"]
    # It may use its bucket, and no other.
    own = ObjectStore(document["plugins"]["storage"]["config"], "other-user", "rotated-secret-key")
    own.write_and_remove("warehouse/x")
    foreign = ObjectStore(
        services.manifest["plugins"]["storage"]["config"], "other-user", "rotated-secret-key"
    )
    with pytest.raises(PlatformError, match="access is denied"):
        foreign.write_and_remove("warehouse/x")


def test_dagster_s_state_has_a_user_of_its_own_that_cannot_reach_the_warehouse(services: Services) -> None:
    document = json.loads(json.dumps(services.manifest))
    config = document["plugins"]["storage"]["config"]
    config |= {"bucket": "state-bucket", "access_key_id": "warehouse-user"}
    manifest = PlatformManifest.model_validate(document)
    env = {**services.environment, STATE_KEYS[0]: "state-user", STATE_KEYS[1]: "state-secret-key"}
    made = [step.what for step in Bootstrap(manifest, environ=env).run() if step.outcome == "made"]
    assert made[-3:] == [
        "policy floe-state-bucket-state",
        "user state-user",
        "policy floe-state-bucket-state of user state-user",
    ]
    assert outcomes(Bootstrap(manifest, environ=env).run()) == {"there", "skipped"}
    rotated = Bootstrap(manifest, environ={**env, STATE_KEYS[1]: "rotated-secret-key"}).run()
    assert [step.what for step in rotated if step.outcome == "changed"] == ["secret of user state-user"]

    own = ObjectStore(config, "state-user", "rotated-secret-key")
    own.write_and_remove("dagster/x")
    assert own.is_usable("dagster/") and not own.is_usable("warehouse/") and not own.is_usable("")
    root = services.store()
    root.put_object("state-bucket", "warehouse/t", io.BytesIO(b"rows"), 4)
    with pytest.raises(PlatformError, match="access is denied"):
        own.write_and_remove("warehouse/x")
    with pytest.raises(S3Error, match="AccessDenied"):
        own.client.get_object("state-bucket", "warehouse/t")
    with pytest.raises(S3Error, match="AccessDenied"):
        list(own.client.list_objects("state-bucket", recursive=True))
    with pytest.raises(S3Error, match="AccessDenied"):
        own.client.remove_object("state-bucket", "warehouse/t")
    # A name that only begins like it is not below it.
    with pytest.raises(PlatformError, match="access is denied"):
        own.write_and_remove("dagster-of-others/x")
    assert root.stat_object("state-bucket", "warehouse/t").size == 4


def test_a_state_user_that_may_use_the_warehouse_is_said(services: Services) -> None:
    key = services.manifest["plugins"]["storage"]["config"]["access_key_id"]
    manifest = PlatformManifest.model_validate(services.manifest)
    env = {**services.environment, STATE_KEYS[0]: key, STATE_KEYS[1]: "any"}
    (step,) = [s for s in Bootstrap(manifest, environ=env).run() if s.what == "user of dagster/"]
    assert step.outcome == "skipped" and "may use the warehouse, too" in step.note


def test_what_does_not_answer_is_named_in_time(services: Services, capsys: Any, tmp_path: Path) -> None:
    manifest = services.write_manifest(tmp_path / "m.yaml", storage_url="http://127.0.0.1:9")
    begun = time.monotonic()
    assert main(["platform", "bootstrap", "--manifest", str(manifest), "--wait", "2"]) == 1
    assert time.monotonic() - begun < 20
    said = capsys.readouterr().err
    assert "the store at http://127.0.0.1:9 did not answer within 2 s: nothing listens there" in said


def test_bootstrap_waits_for_a_service_that_starts(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.kill("minio")
    timer = services.restart_later("minio", 1.5)
    steps = Bootstrap(
        PlatformManifest.model_validate(services.manifest), environ=services.environment, wait_seconds=30
    ).run()
    timer.join()
    assert outcomes(steps) == {"there", "skipped"}


# Health


def failed(services: Services, home: FloeHome, **changes: Any) -> dict[str, str]:
    """Return message and fix of what is broken, by name."""
    plugins = services.plugins(**{k: v for k, v in changes.items() if k.endswith("_url")})
    for path, value in changes.items():
        if path.endswith("_url"):
            continue
        plugin, _, field = path.partition("__")
        target: Any = plugins[plugin].config
        *parents, last = field.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    checks = check_platform(**plugins, home=home, namespaces=("health",))
    assert all(check.fix for check in checks if not check.passed)
    return {check.name: check.message for check in checks if not check.passed}


def test_healthy(services: Services, home: FloeHome) -> None:
    assert failed(services, home) == {}
    assert services.objects("health/") == set()


def test_wrong_password(services: Services, home: FloeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARIS_CLIENT_SECRET", "wrong")
    assert "refuses client 'floe-etl'" in failed(services, home)["credentials"]


def test_wrong_storage_key(services: Services, home: FloeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIO_SECRET_ACCESS_KEY", "wrong-key-of-storage")
    broken = failed(services, home)
    assert set(broken) == {"storage"} and "does not accept the keys" in broken["storage"]


def test_a_principal_that_may_not_write(services: Services, home: FloeHome) -> None:
    broken = failed(services, home, catalog__oauth2__client_id="floe-narrow")
    assert set(broken) == {"namespace"} and "forbids" in broken["namespace"]


def test_catalog_down(services: Services, home: FloeHome) -> None:
    assert "nothing listens there" in failed(services, home, catalog_url="http://127.0.0.1:9")["catalog"]


def test_storage_down(services: Services, home: FloeHome) -> None:
    broken = failed(services, home, storage_url="http://127.0.0.1:9")
    assert {"storage", "clock"} <= set(broken)


def test_an_expired_token(services: Services, home: FloeHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_TOKEN", "long-gone")
    plugins = services.plugins()
    assert plugins["catalog"].config is not None
    del plugins["catalog"].config["oauth2"]
    plugins["catalog"].config["token"] = {"env": "CATALOG_TOKEN"}
    checks = check_platform(**plugins, home=home)
    broken = {check.name: check.message for check in checks if not check.passed}
    assert set(broken) == {"credentials"} and "long-gone" not in broken["credentials"]
    assert "expired" in broken["credentials"]


def test_a_slow_catalog(services: Services, home: FloeHome, proxy: FaultProxy) -> None:
    proxy.rule(applies=lambda method, path: True, before=lambda: time.sleep(3), times=100)
    begun = time.monotonic()
    broken = failed(services, home, catalog_url=proxy.url, catalog__timeout_seconds=1)
    assert "no answer in time" in broken["catalog"] and time.monotonic() - begun < 30


def test_a_clock_that_is_wrong(
    services: Services, home: FloeHome, storage_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("floe_dagster.platform.check.SKEW_SECONDS", -1.0)
    assert "clock" in failed(services, home)


def test_the_command_says_what_is_wrong_and_how_to_mend_it(
    services: Services, capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = services.write_manifest(tmp_path / "m.yaml")
    assert main(["platform", "check", "--manifest", str(manifest), "--namespace", "health"]) == 0
    assert "FAILED" not in capsys.readouterr().out
    monkeypatch.setenv("POLARIS_CLIENT_SECRET", "wrong")
    assert main(["platform", "check", "--manifest", str(manifest), "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["healthy"] and "oauth2" in found["checks"][-1]["fix"]
    assert main(["platform", "check", "--manifest", str(tmp_path / "none.yaml")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_check_of_a_product_in_dagster(
    services: Services, shop: Path, home: FloeHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = services.write_manifest(tmp_path / "platform.yaml")
    result = compile_product(shop, manifest=manifest, home=home)
    assert result.bundle is not None, result.findings
    definitions = build_product_definitions(result.bundle, product_dir=shop, home=home)
    job = definitions.resolve_job_def("shop_platform_check")
    with dg.instance_for_test() as instance:
        for secret, healthy in ((services.environment["POLARIS_CLIENT_SECRET"], True), ("wrong", False)):
            monkeypatch.setenv("POLARIS_CLIENT_SECRET", secret)
            outcome = job.execute_in_process(instance=instance, raise_on_error=False)
            [evaluation] = outcome.get_asset_check_evaluations()
            assert evaluation.passed is healthy
            assert healthy or "oauth2" in str(evaluation.metadata["fix"].value)


def test_the_component_serves_resources_checks_and_jobs(
    services: Services, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    manifest = services.write_manifest(tmp_path / "platform.yaml")
    assert main(["compile", str(shop), "--manifest", str(manifest)]) == 0
    definitions = dg.build_defs_for_component(FloeProduct(product_dir=str(shop), manifest=str(manifest)))
    repository = definitions.get_repository_def()
    names = {job.name for job in repository.get_all_jobs()}
    assert {"shop_run", "shop_maintenance", "shop_platform_check", "shop_compile"} <= names
    assert {"shop_catalog", "shop_storage"} <= set(repository.get_top_level_resources())
    text = yaml.safe_dump(json.loads(json.dumps(str(repository.get_top_level_resources()))))
    for name, value in services.environment.items():
        assert value not in text, name
    assert os.environ["POLARIS_CLIENT_SECRET"]


def test_isolation_two_products_two_principals(
    services: Services, home: FloeHome, through: Callable[..., Shop]
) -> None:
    """One product's principal cannot write the other's namespace, whatever it tries."""
    from floe_dagster.iceberg.catalogs import open_catalog
    from floe_dagster.iceberg.errors import NotUsableError

    plugins = services.plugins()
    assert plugins["catalog"].config is not None
    plugins["catalog"].config["oauth2"]["client_id"] = "floe-narrow"
    narrow = open_catalog(**plugins, home=home)
    owner = Shop(services, "customer_360_isolated", home)
    owner.publish("select 1 as a")
    intruder = Shop(services, "customer_360_isolated", home)
    intruder.catalog = narrow
    for attempt in (
        lambda: intruder.publish("select 2 as a"),
        lambda: intruder.publish("select 2 as a", mode="append"),
        lambda: intruder.publish("select 2 as a", table="other"),
    ):
        with pytest.raises(NotUsableError, match="forbids"):
            attempt()
    with pytest.raises(Exception, match="may not write"):
        narrow.drop_table(("customer_360_isolated", "t"))
    assert owner.rows() == [(1,)]
    own = Shop(services, "financial_risk", home)
    own.direct.create_namespace_if_not_exists("financial_risk")
    own.catalog = narrow
    own.publish("select 3 as a", table="isolated")
    assert own.rows("isolated") == [(3,)]


def test_two_products_in_two_warehouses(services: Services, home: FloeHome) -> None:
    """Another manifest is another bucket; nothing of one is in the other."""
    from floe_dagster.iceberg.catalogs import open_catalog
    from floe_dagster.schemas.artifacts import PluginRef

    document = json.loads(json.dumps(services.manifest))
    document["plugins"]["storage"]["config"] |= {"bucket": "second-warehouse"}
    document["plugins"]["catalog"] = {"type": "sql"}
    manifest = PlatformManifest.model_validate(document)
    Bootstrap(
        manifest,
        environ={
            **services.environment,
            "MINIO_SECRET_ACCESS_KEY": services.environment["MINIO_SECRET_ACCESS_KEY"],
        },
    ).run()
    second = Shop(services, "two", home)
    second.catalog = second.direct = open_catalog(
        PluginRef(type="sql"),
        PluginRef(
            type="minio",
            config={**document["plugins"]["storage"]["config"], "endpoint": services.state["minio"]},
        ),
        home=home,
    )
    first = Shop(services, "two", home)
    first.publish("select 1 as a")
    result = second.publish("select 2 as a")
    assert result.location.startswith("s3://second-warehouse/")
    assert (first.rows(), second.rows()) == ([(1,)], [(2,)])


def test_show_reads_through_the_services_and_explains_what_is_wrong(
    services: Services, shop: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    manifest = services.write_manifest(tmp_path / "platform.yaml")
    assert main(["compile", str(shop), "--manifest", str(manifest)]) == 0
    Shop(services, "shop", FloeHome(tmp_path / "home")).publish("select 41 + 1 as answer", table="shown")
    capsys.readouterr()
    show = ["show", "shop.shown", "--product-dir", str(shop)]
    assert main(show) == 0 and "42" in capsys.readouterr().out
    services.kill("catalog")
    assert main(show) == 2
    said = capsys.readouterr().err
    services.start("catalog")
    assert said.startswith("error: ") and "nothing listens there" in said and "Traceback" not in said
