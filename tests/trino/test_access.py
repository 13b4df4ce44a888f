"""A real Trino asks who we are: password and tokens over TLS, for our own questions and for dbt."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from floe_dagster import client_credentials as tokens
from floe_dagster.compilation.dbt_environment import dbt_environment
from floe_dagster.compilation.profiles import (
    build_dbt_profiles,
    with_client_tag,
    write_profiles,
)
from floe_dagster.engines.errors import EngineError
from floe_dagster.engines.trino import TrinoAccess
from floe_dagster.home import FloeHome
from tests.receivers.serving import self_signed
from tests.token_endpoint import token_endpoint


@pytest.fixture
def secured(services: Any, make_cluster: Callable[..., Any]) -> Any:
    """A coordinator alone that takes the password and tokens."""
    return make_cluster(workers=0, password=True, jwt=True)


@pytest.fixture
def config(secured: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": secured.state["ports"]["https"],
        "http_scheme": "https",
        "catalog": "floe",
        "certificate_file": str(secured.certificate),
        "user": "floe",
        "password": {"env": "TRINO_PASSWORD"},
    }


def with_tokens(config: dict[str, Any], url: str, **more: Any) -> dict[str, Any]:
    without = {name: value for name, value in config.items() if name not in ("user", "password")}
    return {**without, "oauth2": {"token_url": url, "client_id": "etl", "client_secret": "s"}, **more}


def asked(access: TrinoAccess, sql: str, **options: Any) -> tuple[list[list[Any]], str]:
    """Rows, and the query's id."""
    with access.connect(**options) as connection:
        cursor = connection.cursor()
        cursor.execute(sql)
        return cursor.fetchall(), cursor.query_id


def refused(access: TrinoAccess) -> EngineError:
    """What both ways say: the check, and a statement's error in words for people."""
    with pytest.raises(EngineError) as caught:
        access.check()
    with pytest.raises(Exception) as failed:
        asked(access, "select 1")
    assert str(access.error(failed.value)) == str(caught.value)
    return caught.value


def test_the_right_password(secured: Any, config: dict[str, Any]) -> None:
    access = TrinoAccess({**config, "session_properties": {"query_max_run_time": "7m"}}, secured.environment)
    access.check()
    rows, query_id = asked(access, "select current_user, current_catalog", client_tags=["run=1"])
    assert rows == [["floe", "floe"]]
    query = secured.call(f"/v1/query/{query_id}")
    assert query["session"]["source"] == "floe-dagster" and query["session"]["clientTags"] == ["run=1"]
    assert query["session"]["systemProperties"] == {"query_max_run_time": "7m"}
    with access.session() as session:
        told = session.get(f"{access.base_url}/v1/query/{query_id}")
        assert told.status_code == 200 and told.json()["queryId"] == query_id
    with access.connect() as connection:
        cursor = connection.cursor().execute("select 1")
        assert access.query_url(cursor.query_id) == cursor.info_uri


def test_a_check_leaves_no_query_behind(secured: Any, config: dict[str, Any]) -> None:
    access = TrinoAccess(config, secured.environment)
    before = secured.query("select count(*) from system.runtime.queries").rows[0][0]
    for _ in range(3):
        access.check()
    assert secured.query("select count(*) from system.runtime.queries").rows[0][0] == before + 1


def test_a_wrong_password(secured: Any, config: dict[str, Any]) -> None:
    error = refused(TrinoAccess(config, {"TRINO_PASSWORD": "hush-marker"}))
    assert not error.transient and "hush" not in str(error)
    assert f"Trino at {secured.url} does not accept user 'floe'" in str(error)
    assert "Check user and password of plugins.compute.config" in str(error)


def test_nobody_is_named(secured: Any, config: dict[str, Any]) -> None:
    error = refused(TrinoAccess({**config, "password": None}))
    assert "wants to know who asks. Name password or oauth2 in plugins.compute.config" in str(error)


def test_an_unknown_certificate(secured: Any, config: dict[str, Any], tmp_path: Path) -> None:
    other, _key = self_signed(tmp_path)
    for file in (None, str(other)):
        error = refused(TrinoAccess({**config, "certificate_file": file}, secured.environment))
        assert not error.transient
        assert "its certificate is not trusted. Check plugins.compute.config.certificate_file" in str(error)


def test_http_where_trino_speaks_tls(secured: Any, config: dict[str, Any]) -> None:
    plain = {"http_scheme": "http", "certificate_file": None, "password": None}
    error = refused(TrinoAccess({**config, **plain}))
    assert f"Trino at http://127.0.0.1:{config['port']} does not answer" in str(error)


def test_tokens_of_an_endpoint_are_shown_and_renewed(secured: Any, config: dict[str, Any]) -> None:
    with token_endpoint(lambda: secured.token("etl")) as endpoint:
        access = TrinoAccess(with_tokens(config, endpoint.url))
        access.check()
        assert asked(access, "select current_user")[0] == [["etl"]]
        assert len(endpoint.asked) == 1
    with token_endpoint() as endpoint:
        endpoint.issues(secured.token("etl", 5), expires_in=5)
        connection = TrinoAccess(with_tokens(config, endpoint.url)).connect()
        cursor = connection.cursor()
        assert cursor.execute("select current_user").fetchall() == [["etl"]]
        time.sleep(6)
        endpoint.issues(secured.token("late"), expires_in=3600)
        # The connection is the same one; its token is not.
        assert cursor.execute("select current_user").fetchall() == [["late"]]
        assert len(endpoint.asked) == 2


def test_a_token_that_trino_does_not_take(secured: Any, config: dict[str, Any]) -> None:
    for token in (secured.token("etl", -60), secured.token("etl") + "x", "hush.marker.token"):
        with token_endpoint() as endpoint:
            endpoint.issues(token, expires_in=3600)
            error = refused(TrinoAccess(with_tokens(config, endpoint.url)))
        assert not error.transient and token not in str(error)
        assert f"Trino at {secured.url} does not accept the token" in str(error)
        assert "oauth2 of plugins.compute.config" in str(error)


def test_an_endpoint_that_is_away_while_trino_is_there(
    secured: Any, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PAUSE_SECONDS", 0.01)
    access = TrinoAccess(with_tokens(config, "http://127.0.0.1:1/token"))
    with pytest.raises(EngineError, match=r"token endpoint .* does not answer.*oauth2\.token_url"):
        asked(access, "select 1")
    with pytest.raises(EngineError, match="token endpoint"):
        access.check()


@pytest.mark.parametrize("method", ["password", "oauth2"])
def test_dbt_gets_in_with_the_same_settings(
    secured: Any, config: dict[str, Any], shop: Path, home: FloeHome, tmp_path: Path, method: str
) -> None:
    with token_endpoint(lambda: secured.token("etl")) as endpoint:
        settings = config if method == "password" else with_tokens(config, endpoint.url)
        access = TrinoAccess(settings, secured.environment)
        environ = {**dbt_environment(home), **access.environment}
    profiles = with_client_tag(build_dbt_profiles("shop", "trino", settings), "shop", f"tag={method}")
    folder = write_profiles(profiles, tmp_path / "profiles", home)
    secrets = [value for name, value in environ.items() if name.startswith("DBT_ENV_SECRET_")]
    assert len(secrets) == 1
    ask = "select current_user as who, current_catalog as lake, current_schema as place"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dbt.cli.main", "--log-level", "debug"),
            *("show", "--inline", ask, "--output", "json", "--log-path", str(tmp_path / "logs")),
            *("--project-dir", str(shop), "--profiles-dir", str(folder), "--target-path", str(tmp_path / "target")),
        ],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    who = "floe" if method == "password" else "etl"
    shown = "".join(done.stdout.split())
    assert f'"who":"{who}","lake":"floe","place":"floe_audit_shop"' in shown, done.stdout
    assert not any(secret in done.stdout + (tmp_path / "logs" / "dbt.log").read_text() for secret in secrets)
    found = secured.query(
        "select query_id from system.runtime.queries where query like '%current_schema as place%'"
    )
    tags = [secured.call(f"/v1/query/{row[0]}")["session"]["clientTags"] for row in found.rows]
    assert [f"tag={method}"] in tags


def test_a_large_seed_fits_into_a_statement(
    secured: Any, config: dict[str, Any], shop: Path, home: FloeHome, tmp_path: Path, namespace: str
) -> None:
    """dbt-trino sends a thousand rows at once, every value a parameter of EXECUTE IMMEDIATE."""
    header = ",".join(f"c{number}" for number in range(12))
    lines = [",".join(f"it's 100%s {number}-{column}" for column in range(12)) for number in range(2500)]
    (shop / "seeds").mkdir()
    (shop / "seeds" / "large.csv").write_text("\n".join([header, *lines]) + "\n")
    access = TrinoAccess(config, secured.environment)
    profiles = build_dbt_profiles("shop", "trino", {**config, "catalog": "memory"})
    profiles["shop"]["outputs"]["floe"]["schema"] = namespace
    folder = write_profiles(profiles, tmp_path / "profiles", home)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dbt.cli.main", "seed", "--log-path", str(tmp_path / "logs")),
            *("--project-dir", str(shop), "--profiles-dir", str(folder), "--target-path", str(tmp_path / "target")),
        ],
        env={**dbt_environment(home), **access.environment},
        capture_output=True,
        text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows, _ = asked(access, f"select count(*), max(c11) from memory.{namespace}.large")
    assert rows == [[2500, max(line.rpartition(",")[2] for line in lines)]]
