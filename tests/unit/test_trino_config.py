"""What a manifest may say of Trino, and what dbt is told of it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.engines import check_engine
from floe_dagster.compilation.profiles import build_dbt_profiles, with_client_tag, with_memory_limit
from floe_dagster.compilation.validation import parse_manifest
from floe_dagster.findings import Finding
from floe_dagster.schemas.compute import ENGINES, supported_engines
from floe_dagster.schemas.compute.engine import audit_schema
from floe_dagster.schemas.compute.trino import TrinoConfig
from floe_dagster.schemas.manifest import PlatformManifest

HEAD: dict[str, Any] = {
    "apiVersion": "floe.dev/v1",
    "kind": "Manifest",
    "metadata": {"name": "platform-a", "version": "1.0.0", "owner": "platform@example.com"},
}
OAUTH2 = {"token_url": "https://id.example/token", "client_id": "etl", "client_secret": {"env": "SECRET"}}
IN_KUBERNETES = "trino-login"
TLS = {"http_scheme": "https", "port": 8443}


def config(**settings: Any) -> dict[str, Any]:
    return {"host": "trino.example", "catalog": "floe", **settings}


def findings(tmp_path: Path, settings: dict[str, Any]) -> list[Finding]:
    """What is wrong with a manifest whose settings of Trino begin in line 8, one a line."""
    path = tmp_path / "manifest.yaml"
    head = yaml.safe_dump(HEAD, sort_keys=False, default_flow_style=None)
    lines = [f"      {name}: {json.dumps(value)}\n" for name, value in settings.items()]
    path.write_text(head + "plugins:\n  compute:\n    type: trino\n    config:\n" + "".join(lines))
    return parse_manifest(read_document(path, root=tmp_path)).findings


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"host": "10.0.0.7", "port": 80, "user": "etl", "threads": 256, "retries": 1},
        {"host": "[::1]", "session_properties": {"query_max_run_time": "2h", "floe.target_max_file_size": "64MB"}},
        {**TLS, "user": "etl", "password": {"env": "PASSWORD"}, "certificate_file": "/etc/trino/ca.pem"},
        {**TLS, "user": "etl", "password": "${PASSWORD}", "web_url": "https://trino.example/gateway"},
        {**TLS, "user": "etl", "password": {"key": "password", "secret": IN_KUBERNETES}},
        {**TLS, "oauth2": OAUTH2},
        {**TLS, "oauth2": {**OAUTH2, "token_url": "http://127.0.0.1:8080/token", "scope": "trino"}},
        {**TLS, "oauth2": {**OAUTH2, "token_url": "http://localhost/token"}},
        {**TLS},
        {"user": "Jürgen {o'Neil} {etl}@example.com", "session_properties": {"a": "{x}, 100% #1"}},
    ],
)  # fmt: skip
def test_what_may_be_said(tmp_path: Path, settings: dict[str, Any]) -> None:
    assert findings(tmp_path, config(**settings)) == []


NEEDS_TLS = "needs http_scheme: https"


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        ({"user": "etl", "password": {"env": "P"}}, "password", f"password {NEEDS_TLS}"),
        ({"oauth2": OAUTH2}, "oauth2", f"oauth2 {NEEDS_TLS}"),
        ({"certificate_file": "/ca.pem"}, "certificate_file", f"certificate_file {NEEDS_TLS}"),
        ({**TLS, "password": {"env": "P"}}, "password", "password needs a user whose password it is"),
        (
            {**TLS, "user": "etl", "password": {"env": "P"}, "oauth2": OAUTH2},
            "oauth2",
            "oauth2 cannot stand beside password",
        ),
        (
            {**TLS, "oauth2": {**OAUTH2, "token_url": "http://id.example/token"}},
            "oauth2.token_url",
            "token_url is not encrypted: the client secret goes there",
        ),
        ({**TLS, "oauth2": {**OAUTH2, "token_url": "http://127.evil"}}, "oauth2.token_url", "token_url is not encrypted"),
        ({**TLS, "oauth2": {"client_id": "a"}}, "oauth2.token_url", "token_url is missing"),
        ({"host": "http://trino.example"}, "host", "host has the wrong form"),
        ({"host": "trino.example:8080"}, "host", "host has the wrong form"),
        ({"host": ""}, "host", "host has the wrong form"),
        ({"catalog": "a.b"}, "catalog", "catalog has the wrong form"),
        ({"user": ""}, "user", "user is empty"),
        ({**TLS, "user": "a:b", "password": {"env": "P"}}, "user", "user holds a colon"),
        ({"user": "\u7528\u6237"}, "user", "user cannot be sent to Trino"),
        ({"user": "a\nb"}, "user", "user cannot be sent to Trino"),
        ({"user": " etl"}, "user", "user cannot be sent to Trino"),
        ({"user": "{{ env_var('U') }}"}, "user", "user holds {{, which dbt renders as Jinja"),
        ({"catalog": "{{ c }}"}, "catalog", "catalog has the wrong form"),
        ({**TLS, "certificate_file": ""}, "certificate_file", "certificate_file is empty"),
        ({**TLS, "certificate_file": "ca.pem"}, "certificate_file", "certificate_file is no absolute path"),
        ({**TLS, "certificate_file": "/{# #}ca.pem"}, "certificate_file", "certificate_file holds {#"),
        ({"session_properties": {"a": "{% set x = 1 %}"}}, "session_properties.a", "a holds {%, which dbt"),
        ({"session_properties": {"{{a}}": "b"}}, "session_properties.{{a}}", "{{a}} holds {{, which dbt"),
        ({"port": 0}, "port", "port is out of bounds"),
        ({"threads": 257}, "threads", "threads is out of bounds"),
        ({"retries": 0}, "retries", "retries is out of bounds"),
        ({"http_scheme": "htps"}, "http_scheme", "http_scheme has a value that is not allowed"),
        ({"web_url": "trino.example"}, "web_url", "web_url has the wrong form"),
        ({"session_properties": {"a,b": "c"}}, "session_properties", ""),
        ({"session_properties": {"a": 1}}, "session_properties.a", "a has the wrong type"),
        ({"pasword": {"env": "P"}}, "pasword", "unknown field 'pasword'"),
    ],
)  # fmt: skip
def test_what_may_not_be_said(tmp_path: Path, settings: dict[str, Any], field: str, said: str) -> None:
    given = config(**settings)
    found = findings(tmp_path, given)
    assert [finding.severity for finding in found] == ["error"] * len(found) and found
    first = found[0]
    assert first.message.startswith(said)
    assert (first.field or "").startswith(f"plugins.compute.config.{field}")
    assert first.line == 8 + list(given).index(field.partition(".")[0])


@pytest.mark.parametrize(
    ("settings", "found", "allowed"),
    [
        ({"user": "a:b"}, "'a:b'", "printable Latin-1 without a colon"),
        ({"user": "{{ u }}"}, "'{{ u }}'", "text without {{"),
        ({**TLS, "certificate_file": "ca.pem"}, "'ca.pem'", "an absolute path"),
        ({"certificate_file": "/ca.pem"}, "'/ca.pem'", "certificate_file beside http_scheme: https"),
        ({"user": "etl", "password": {"env": "P"}}, "a mapping", "password beside http_scheme: https"),
        ({**TLS, "password": {"env": "P"}}, "a mapping", "password beside user"),
        ({**TLS, "user": "etl", "password": {"env": "P"}, "oauth2": OAUTH2}, "a mapping", "one of the two"),
        (
            {**TLS, "oauth2": {**OAUTH2, "token_url": "http://a.b"}},
            "'http://a.b'",
            "https://, and http:// to this",
        ),
    ],
)
def test_a_finding_says_what_is_allowed_and_what_to_do(
    tmp_path: Path, settings: dict[str, Any], found: str | None, allowed: str
) -> None:
    (finding,) = findings(tmp_path, config(**settings))
    assert finding.found == found and (finding.allowed or "").startswith(allowed)
    assert (finding.fix or "").endswith(".") and finding.code == "invalid-value"


@pytest.mark.parametrize("scheme", ["", "https://"])
def test_a_password_in_front_of_the_host_is_not_repeated(tmp_path: Path, scheme: str) -> None:
    given = config(host=f"{scheme}etl:hush@trino.example")
    said = "\n".join(finding.to_text() for finding in findings(tmp_path, given))
    assert "trino.example" in said and "hush" not in said


@given(st.text())
def test_a_user_that_is_taken_can_be_sent(user: str) -> None:
    try:
        TrinoConfig.model_validate(config(user=user))
    except ValidationError:
        return
    prepared = requests.Request("GET", "http://trino.example", headers={"X-Trino-User": user}).prepare()
    assert prepared.headers["X-Trino-User"].encode("latin-1").decode("latin-1") == user
    assert ":" not in user


def test_jinja_in_the_path_of_duckdb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    plugins = {"compute": {"type": "duckdb", "config": {"path": "{product_slug}/{{ x }}.duckdb"}}}
    path.write_text(yaml.safe_dump({**HEAD, "plugins": plugins}))
    (finding,) = parse_manifest(read_document(path, root=tmp_path)).findings
    assert finding.field == "plugins.compute.config.path"
    assert finding.message == "path holds {{, which dbt renders as Jinja"


def test_a_literal_password_is_reported_and_never_repeated(tmp_path: Path) -> None:
    literal = "hush-marker"
    for settings, field in (
        ({**TLS, "user": "etl", "password": literal}, "password"),
        ({**TLS, "oauth2": {**OAUTH2, "client_secret": literal}}, "oauth2.client_secret"),
    ):
        (finding,) = findings(tmp_path, config(**settings))
        assert (finding.code, finding.field) == ("literal-secret", f"plugins.compute.config.{field}")
        assert "marker" not in finding.to_text()


def output(**settings: Any) -> dict[str, Any]:
    """What dbt is told, from the settings as the artifact holds them."""
    held = TrinoConfig.model_validate(config(**settings)).model_dump(mode="json", exclude_none=True)
    found: dict[str, Any] = build_dbt_profiles("shop", "trino", held)["shop"]["outputs"]["floe"]
    return found


def test_a_profile_without_authentication() -> None:
    assert output(session_properties={"a": "b"}) == {
        "type": "trino",
        "method": "none",
        "http_scheme": "http",
        "host": "trino.example",
        "port": 8080,
        "user": "floe",
        "database": "floe",
        "schema": "floe_audit_shop",
        "threads": 4,
        "retries": 3,
        "session_properties": {"a": "b"},
    }


def test_secrets_are_references_in_the_profile() -> None:
    password = output(**TLS, user="etl", password={"env": "TRINO_PASSWORD"}, certificate_file="/ca.pem")
    assert password["method"] == "ldap" and password["user"] == "etl" and password["cert"] == "/ca.pem"
    assert password["password"] == "{{ env_var('DBT_ENV_SECRET_FLOE_TRINO_PASSWORD', '') }}"
    token = output(**TLS, oauth2=OAUTH2)
    assert token["method"] == "jwt" and "user" not in token
    assert token["jwt_token"] == "{{ env_var('DBT_ENV_SECRET_FLOE_TRINO_TOKEN', '') }}"
    assert "SECRET" not in str({**token, "jwt_token": ""})


def test_a_certificate_is_always_checked() -> None:
    assert "cert" not in output()
    assert output(**TLS)["cert"] is True
    assert output(**TLS, oauth2=OAUTH2)["cert"] is True


def test_a_client_tag_is_added_and_nothing_else_changes() -> None:
    profiles = build_dbt_profiles("shop", "trino", config())
    before = copy.deepcopy(profiles)
    tagged = with_client_tag(with_client_tag(profiles, "shop", "run=1"), "shop", "team")
    assert profiles == before
    assert tagged["shop"]["outputs"]["floe"].pop("client_tags") == ["run=1", "team"]
    assert tagged == before


@given(st.text())
def test_a_tag_that_is_taken_can_be_sent(tag: str) -> None:
    profiles = build_dbt_profiles("shop", "trino", config())
    try:
        tagged = with_client_tag(profiles, "shop", tag)
    except ValueError:
        assert not tag.strip() or "," in tag or not tag.isascii() or not tag.isprintable()
    else:
        (kept,) = tagged["shop"]["outputs"]["floe"]["client_tags"]
        # As a header: one line, and still one tag after it was split.
        assert kept.encode("ascii").split(b",") == [tag.encode()] and len(kept.splitlines()) == 1


def test_a_memory_limit_keeps_what_else_is_set() -> None:
    profiles = build_dbt_profiles("shop", "duckdb", {"threads": 2})
    limited = with_memory_limit(profiles, "shop", "1GB")
    assert limited["shop"]["outputs"]["floe"]["settings"] == {"memory_limit": "1GB"}
    assert limited["shop"]["outputs"]["floe"]["threads"] == 2


def test_what_an_engine_says_of_itself() -> None:
    assert supported_engines() == ["duckdb", "trino"] == sorted(ENGINES)
    assert {name: engine.writes_catalog for name, engine in ENGINES.items()} == {
        "duckdb": False,
        "trino": True,
    }
    assert all(engine.adapter == f"dbt-{name}" and engine.dialect == name for name, engine in ENGINES.items())
    assert audit_schema("customer_360") == "floe_audit_customer_360"


def manifest(**plugins: Any) -> PlatformManifest:
    return PlatformManifest.model_validate({**HEAD, "plugins": plugins})


TRINO = {"type": "trino", "config": config()}
REST = {"type": "rest", "config": {"uri": "http://rest.example", "warehouse": "w"}}
POLARIS = {
    "type": "polaris",
    "config": {
        "uri": "http://polaris.example/api/catalog",
        "warehouse": "w",
        "oauth2": {"client_id": "etl", "client_secret": {"env": "S"}},
    },
}


def checked(types: dict[str, str], **plugins: Any) -> list[tuple[str, str | None, int | None]]:
    places = {name: ("m.yaml", number) for number, name in enumerate(plugins, 10)}
    found = check_engine(manifest(**plugins), types, places, "m.yaml")
    return [(finding.code, finding.field, finding.line) for finding in found]


@pytest.mark.parametrize("catalog", [REST, POLARIS])
def test_a_catalog_that_is_a_server_is_shared(catalog: dict[str, Any]) -> None:
    types = {"compute": "trino", "catalog": catalog["type"], "storage": "local"}
    assert checked(types, compute=TRINO, catalog=catalog) == []


def test_a_catalog_that_trino_cannot_reach() -> None:
    types = {"compute": "trino", "catalog": "sql", "storage": "local"}
    named = checked(types, compute=TRINO, catalog={"type": "sql"})
    assert named == [("unshared-catalog", "plugins.catalog.type", 11)]
    assert checked(types, compute=TRINO) == [("unshared-catalog", "plugins.compute.type", 10)]
    server = {"type": "sql", "config": {"uri": "postgresql://db.example/catalog"}}
    assert checked(types, compute=TRINO, catalog=server) == named
    (finding,) = check_engine(manifest(compute=TRINO), types, {}, "m.yaml")
    assert (finding.file, finding.line, finding.allowed) == (
        "m.yaml",
        1,
        "plugins.catalog.type polaris or rest",
    )
    assert checked({**types, "compute": "duckdb"}, compute={"type": "duckdb"}) == []


def test_a_storage_that_trino_cannot_reach() -> None:
    types = {"compute": "trino", "catalog": "rest", "storage": "local"}
    found = checked(types, compute=TRINO, catalog=REST, storage={"type": "local"})
    assert found == [("unshared-storage", "plugins.storage.type", 12)]


def test_engines_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    types = {"compute": "trino", "catalog": "rest", "storage": "local"}
    assert checked({**types, "compute": "spark"}) == [("unsupported-compute", "plugins.compute.type", 1)]
    # `defaults: {compute: trino}` names an engine, and says nothing of where it is.
    assert checked(types, catalog=REST) == [("missing-field", "plugins.compute.type", 1)]
    absent = {**ENGINES, "trino": replace(ENGINES["trino"], adapter="dbt-of-nobody")}
    for module in ("floe_dagster.schemas.compute", "floe_dagster.compilation.engines"):
        monkeypatch.setattr(f"{module}.ENGINES", absent)
    (finding,) = check_engine(manifest(compute=TRINO), types, {"compute": ("m.yaml", 7)}, "m.yaml")
    assert finding.message == "this environment has no dbt-of-nobody, which products on 'trino' need"
    assert (finding.line, finding.allowed) == (7, "duckdb")
    assert finding.fix == "Install floe-dagster[trino]."


@pytest.mark.parametrize(("scheme", "port"), [("http", 8080), ("https", 8443)])
def test_the_port_is_that_of_the_scheme(scheme: str, port: int) -> None:
    config = TrinoConfig(host="trino.example.com", http_scheme=scheme, catalog="lake")
    assert config.port == port
    assert ENGINES["trino"].dbt_output("shop", config.model_dump(exclude_none=True))["port"] == port
    assert TrinoConfig(host="trino.example.com", http_scheme=scheme, port=1, catalog="lake").port == 1
