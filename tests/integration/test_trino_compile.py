"""Products on Trino compile with dbt-trino where no Trino is, and no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from floe_dagster.compilation.dbt_environment import dbt_environment
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.compilation.profiles import build_dbt_profiles, write_profiles
from floe_dagster.engines.trino import TrinoAccess
from floe_dagster.home import FloeHome
from tests.receivers.serving import self_signed, serving
from tests.token_endpoint import token_endpoint

PLUGINS = """\
plugins:
  compute:
    type: trino
    config: {{host: nowhere.invalid, port: 8443, http_scheme: https, catalog: lake, {who}}}
  catalog: {{type: rest, config: {{uri: 'http://nowhere.invalid', warehouse: w}}}}
  storage: {{type: s3, config: {{bucket: b}}}}
"""
BASIC = "user: etl, password: {env: NOT_SET}"
OAUTH2 = (
    "oauth2: {token_url: 'https://nowhere.invalid/t', client_id: etl, client_secret: {secret: a, key: b}}"
)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize(("who", "reference"), [(BASIC, "NOT_SET"), (OAUTH2, "FLOE_SECRET_A_B")])
def test_compiling_needs_neither_trino_nor_its_secret(
    shop: Path, home: FloeHome, who: str, reference: str
) -> None:
    with (shop.parent / "manifest.yaml").open("a") as file:
        file.write(PLUGINS.format(who=who))
    result = compile_product(shop, home=home)
    assert [finding.message for finding in result.findings if finding.severity == "error"] == []
    # dbt warns of settings that nothing uses; people can mend only their own.
    assert not [finding for finding in result.findings if "unused" in finding.message.lower()]
    artifact = result.artifact
    assert artifact is not None and artifact.plugins is not None
    # A run resolves what is held here; the profile names only what dbt is given for it.
    assert artifact.plugins.compute.type == "trino" and reference in str(artifact.plugins.compute.config)
    assert reference not in str(artifact.dbt_profiles)
    assert result.bundle is not None
    dbt_manifest = result.bundle.dbt_manifest()
    node = dbt_manifest["nodes"]["model.shop.daily"]
    assert (node["database"], node["schema"]) == ("lake", "floe_audit_shop")
    assert dbt_manifest["metadata"]["adapter_type"] == "trino"


@pytest.mark.parametrize(
    ("method", "secret"),
    [
        ("password", " {{ hush }}: 'a\"b\\c' # - [é$$$DBT_SECRET_START$$$ "),
        ("password", "0123456789"),
        ("oauth2", "{{hush}}.'a\"b\\c'#-[$$$DBT_SECRET_START$$$"),
    ],
)
def test_dbt_shows_what_it_is_given_and_does_not_log_it(
    shop: Path, home: FloeHome, tmp_path: Path, method: str, secret: str, certificate: tuple[Path, Path]
) -> None:
    shown: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            shown.append(self.headers["Authorization"])
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with serving(Refusing, certificate) as address, token_endpoint() as endpoint:
        config: dict[str, Any] = {
            "host": "localhost",
            "port": int(address.rpartition(":")[2]),
            "http_scheme": "https",
            "catalog": "lake",
            "certificate_file": str(certificate[0]),
            "retries": 1,
        }
        if method == "password":
            config |= {"user": "etl", "password": {"env": "SECRET"}}
            expected, hidden = b64encode(f"etl:{secret}".encode("latin-1")).decode(), secret
        else:
            expected = hidden = secret
            endpoint.issues(secret)
            config["oauth2"] = {
                "token_url": endpoint.url,
                "client_id": "a",
                "client_secret": {"env": "SECRET"},
            }
        folder = write_profiles(build_dbt_profiles("shop", "trino", config), tmp_path / "profiles", home)
        environ = dbt_environment(home, {**os.environ, "REQUESTS_CA_BUNDLE": "/nowhere.pem"})
        done = subprocess.run(
            [
                *(sys.executable, "-m", "dbt.cli.main", "--log-level", "debug", "debug"),
                *(
                    "--project-dir",
                    str(shop),
                    "--profiles-dir",
                    str(folder),
                    "--log-path",
                    str(tmp_path / "logs"),
                ),
            ],
            env={**environ, **TrinoAccess(config, {"SECRET": secret}).environment},
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=120,
        )
    assert shown and set(shown) == {("Basic " if method == "password" else "Bearer ") + expected}, done.stdout
    written = done.stdout + done.stderr + (tmp_path / "logs" / "dbt.log").read_text()
    assert "401" in written and "host: localhost" in written
    assert hidden not in written


def test_what_would_be_seen_before_its_tests_have_passed_is_refused(shop: Path, home: FloeHome) -> None:
    with (shop.parent / "manifest.yaml").open("a") as file:
        file.write(PLUGINS.format(who=BASIC))
    (shop / "macros").mkdir()
    (shop / "macros" / "names.sql").write_text(
        "{% macro generate_schema_name(custom, node) %}{{ custom or target.schema }}{% endmacro %}"
    )
    (shop / "models" / "orders.sql").write_text("{{ config(schema='shop') }}\nselect 1 as id\n")
    (shop / "models" / "daily.sql").write_text(
        "{{ config(on_table_exists='drop') }}\nselect count(*) as n from {{ ref('orders') }}\n"
    )
    (shop / "models" / "history.sql").write_text("select 1 as id\n")
    (shop / "models" / "Orders_By_Day.sql").write_text("select 1 as id\n")
    (shop / "models" / "hooked.sql").write_text(
        "{{ config(pre_hook='drop table if exists {{ this }}') }}\nselect 1 as id\n"
    )
    result = compile_product(shop, home=home)
    found = [finding for finding in result.findings if finding.severity == "error"]
    (hooked,) = [finding for finding in found if finding.model == "hooked"]
    assert hooked.code == "drops-its-table" and hooked.found == "drop table if exists {{ this }}"
    errors = {finding.code: finding for finding in found if finding is not hooked}
    assert (
        set(errors) == {"outside-audit-schema", "drops-its-table", "metadata-table-name", "upper-case-name"}
        and result.bundle is None
    )
    assert errors["outside-audit-schema"].file == "shop/models/orders.sql"
    assert "'shop'" in errors["outside-audit-schema"].message
    assert errors["drops-its-table"].model == "daily" and errors["drops-its-table"].allowed == "replace"


def test_a_custom_schema_is_the_product_s_own(shop: Path, home: FloeHome) -> None:
    with (shop.parent / "manifest.yaml").open("a") as file:
        file.write(PLUGINS.format(who=BASIC))
    (shop / "models" / "orders.sql").write_text("{{ config(schema='Marts') }}\nselect 1 as id\n")
    result = compile_product(shop, home=home)
    assert result.index is not None, result.findings
    relations = {asset.name: asset.relation[1] for asset in result.index.assets}
    assert relations == {"orders": "floe_audit_shop__marts", "daily": "floe_audit_shop"}
    # `shop` with the schema `marts`, and a product `shop_marts`, would meet.
    (shop / "macros").mkdir()
    (shop / "macros" / "names.sql").write_text(
        "{% macro generate_schema_name(custom, node) %}{{ target.schema }}{{ '_' ~ custom if custom }}{% endmacro %}"
    )
    result = compile_product(shop, home=home)
    found = [finding for finding in result.findings if finding.severity == "error"]
    assert [(finding.code, finding.found) for finding in found] == [
        ("outside-audit-schema", "floe_audit_shop_Marts")
    ]
    (shop / "macros" / "names.sql").unlink()
    spec = shop / "floe.yaml"
    spec.write_text(spec.read_text().replace("name: shop,", "name: shop--marts,"))
    project = shop / "dbt_project.yml"
    project.write_text(project.read_text().replace(": shop\n", ": shop__marts\n"))
    found = [finding for finding in compile_product(shop, home=home).findings if finding.severity == "error"]
    assert [(finding.code, finding.found) for finding in found] == [("audit-schema-name", "shop--marts")]


def test_a_macro_with_a_name_of_the_engine_s_is_refused_where_it_stands(shop: Path, home: FloeHome) -> None:
    manifest = shop.parent / "manifest.yaml"
    before = manifest.read_text()
    (shop / "macros" / "more").mkdir(parents=True)
    (shop / "macros" / "more" / "layout.sql").write_text(
        "{# {% macro trino__get_drop_sql(x) %}\n#}\n{% macro mine() %}1{% endmacro %}\n"
        "{%- macro properties(temporary) %}with (format = 'ORC'){% endmacro %}\n"
    )
    manifest.write_text(before + PLUGINS.format(who=BASIC))
    result = compile_product(shop, home=home)
    (found,) = [finding for finding in result.findings if finding.severity == "error"]
    assert (found.code, found.found) == ("reserved-macro", "properties") and result.bundle is None
    assert (found.file, found.line) == ("shop/macros/more/layout.sql", 4)
    manifest.write_text(before)
    assert compile_product(shop, home=home).bundle is not None
