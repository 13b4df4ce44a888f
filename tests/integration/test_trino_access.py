"""The way to Trino as far as it goes without one: tokens from a real endpoint, and why nobody answers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from floe_dagster import client_credentials as tokens
from floe_dagster.client_credentials import TokenError, TokenSource, life_seconds
from floe_dagster.engines.errors import EngineError
from floe_dagster.engines.trino import TrinoAccess
from tests.receivers.serving import Answer, self_signed, serving
from tests.token_endpoint import TokenEndpoint, token_endpoint

HUSH = "hush marker&+é"
FIELD = "plugins.compute.config.oauth2"


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenEndpoint]:
    monkeypatch.setattr(tokens, "PAUSE_SECONDS", 0.01)
    with token_endpoint() as made:
        yield made


def credentials(endpoint: TokenEndpoint, **options: Any) -> TokenSource:
    return TokenSource(endpoint.url, "etl", HUSH, field=FIELD, **options)


def config(**more: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": 1, "catalog": "floe", "retries": 1, **more}


def oauth2(endpoint: TokenEndpoint) -> dict[str, Any]:
    given = {"token_url": endpoint.url, "client_id": "${ID}", "client_secret": {"env": "S"}, "scope": "trino"}
    return config(http_scheme="https", oauth2=given)


def failure(source: TokenSource | TrinoAccess) -> TokenError | EngineError:
    with pytest.raises((TokenError, EngineError)) as caught:
        source.token() if isinstance(source, TokenSource) else source.check()
    assert "hush" not in str(caught.value)
    return caught.value


def test_a_token_is_asked_for_as_the_standard_says(endpoint: TokenEndpoint) -> None:
    endpoint.issues("one", expires_in=3600)
    access = TrinoAccess(oauth2(endpoint), {"S": HUSH, "ID": "etl"})
    assert list(access.environment.items()) == [("DBT_ENV_SECRET_FLOE_TRINO_TOKEN", "one")]
    assert endpoint.asked == [
        {"grant_type": "client_credentials", "client_id": "etl", "client_secret": HUSH, "scope": "trino"}
    ]
    assert access.user is None and "Authorization" not in endpoint.headers[0]
    assert "hush" not in repr(access)


def test_a_netrc_file_does_not_get_into_the_question(
    endpoint: TokenEndpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine localhost login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    endpoint.issues("one")
    assert credentials(endpoint).token() == "one"
    assert "Authorization" not in endpoint.headers[0]


def test_a_token_is_kept_while_it_is_good_and_renewed_before_it_expires(endpoint: TokenEndpoint) -> None:
    endpoint.issues("one", expires_in=3600)
    source = credentials(endpoint)
    assert [source.token(), source.token()] == ["one", "one"] and len(endpoint.asked) == 1
    endpoint.issues("two", expires_in=0.001)
    assert source.token(fresh=True) == "two"
    endpoint.issues("three", expires_in="3600")
    assert [source.token(), source.token()] == ["three", "three"] and len(endpoint.asked) == 3


def test_dbt_is_given_a_new_token_each_time(endpoint: TokenEndpoint) -> None:
    endpoint.issues("one", expires_in=3600)
    access = TrinoAccess(oauth2(endpoint), {"S": HUSH, "ID": "etl"})
    first = access.environment
    endpoint.issues("two", expires_in=3600)
    assert first != access.environment


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_client_that_is_refused(endpoint: TokenEndpoint, status: int) -> None:
    said = {"error": "invalid_client", "error_description": f"no client has the secret {HUSH}"}
    endpoint.answers = [Answer(status, json.dumps(said).encode())]
    error = failure(credentials(endpoint))
    assert not error.transient and len(endpoint.asked) == 1
    assert f"{endpoint.url} refuses client 'etl': no client has the secret ***." in str(error)
    assert "plugins.compute.config.oauth2" in str(error)


def test_an_endpoint_that_is_away_for_a_moment(endpoint: TokenEndpoint) -> None:
    endpoint.issues("one")
    endpoint.answers = [Answer(503), Answer(429), *endpoint.answers]
    assert credentials(endpoint).token() == "one" and len(endpoint.asked) == 3


def test_an_endpoint_that_stays_away(endpoint: TokenEndpoint) -> None:
    endpoint.answers = [Answer(503)]
    error = failure(credentials(endpoint))
    assert error.transient and "issues no token: HTTP 503" in str(error)
    assert len(endpoint.asked) == tokens.ATTEMPTS


def test_nobody_listens_at_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "PAUSE_SECONDS", 0.01)
    error = failure(TokenSource("http://127.0.0.1:1/token", "etl", HUSH, field=FIELD))
    assert error.transient and "http://127.0.0.1:1/token does not answer: nothing listens there" in str(error)
    assert "plugins.compute.config.oauth2.token_url" in str(error)


def test_an_endpoint_that_takes_too_long(endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "ATTEMPTS", 1)
    endpoint.issues("one")
    endpoint.pause = 1.0
    error = failure(credentials(endpoint, answer_seconds=0.2))
    assert error.transient and "no answer in time" in str(error)


def test_an_answer_that_drips(endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "ATTEMPTS", 1)
    endpoint.issues("t" * 60)
    endpoint.pause = 0.1
    begun = time.monotonic()
    error = failure(credentials(endpoint, answer_seconds=0.5))
    # All of it would take ten seconds.
    assert time.monotonic() - begun < 4
    assert error.transient and "no answer in time" in str(error)


def test_a_redirect_is_not_followed(endpoint: TokenEndpoint) -> None:
    with token_endpoint() as other:
        endpoint.answers = [Answer(307, headers={"Location": other.url})]
        error = failure(credentials(endpoint))
        assert other.asked == []
    assert "issues no token: HTTP 307" in str(error) and not error.transient


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>login</html>",
        b"[1]",
        b'{"access_token": null}',
        b'{"access_token": 7}',
        b'{"access_token": "two\\nlines"}',
        b'{"access_token": ""}',
        b"[" * 100_000,
        b'{"access_token": "' + b"t" * (300 << 10) + b'"}',
    ],
    ids=["nothing", "html", "list", "null", "number", "lines", "empty", "deep", "long"],
)
def test_an_answer_that_holds_no_token(endpoint: TokenEndpoint, body: bytes) -> None:
    endpoint.answers = [Answer(200, body)]
    error = failure(credentials(endpoint))
    assert not error.transient and "is no JSON with an access_token" in str(error)
    assert len(str(error)) < 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(HUSH),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ANSWERS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("access_token", "expires_in", "error", "error_description"), JSON)
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(said=ANSWERS | JSON, status=st.sampled_from([200, 201, 302, 400, 401, 404]))
def test_whatever_is_answered_a_token_can_be_sent_or_the_error_is_clear(
    endpoint: TokenEndpoint, said: Any, status: int
) -> None:
    endpoint.answers = [Answer(status, json.dumps(said).encode())]
    try:
        token = credentials(endpoint).token()
    except TokenError as error:
        assert "plugins.compute.config.oauth2" in str(error) and HUSH not in str(error)
        assert str(error).isprintable()
    else:
        assert status == 200 and token == said["access_token"]
        assert token.isascii() and token.isprintable() and " " not in token


@given(st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers()))
def test_a_life_is_a_number_of_seconds(said: Any) -> None:
    assert 0 < life_seconds(said) < float("inf")
    assert life_seconds("120") == life_seconds(120) == 120.0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"user": "etl", "password": {"env": "P"}}, "password refers to the environment variable P"),
        (
            {"oauth2": {"token_url": "https://id/t", "client_id": "a", "client_secret": {"env": "S"}}},
            "oauth2.client_secret refers to the environment variable S",
        ),
    ],
)
def test_a_secret_that_is_not_set(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(EngineError, match=f"plugins.compute.config.{name}.* is not set") as caught:
        TrinoAccess(config(http_scheme="https", **settings), {})
    assert not caught.value.transient


def test_a_password_that_cannot_be_sent() -> None:
    with pytest.raises(EngineError, match=r"plugins\.compute\.config\.password has a character") as caught:
        TrinoAccess(config(user="etl", password={"env": "P"}), {"P": "hush€"})
    assert "hush" not in str(caught.value)


def test_a_certificate_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing\n")
    for path, said in ((tmp_path / "ca.pem", "is not a PEM file"), (tmp_path / "none.pem", "cannot be read")):
        with pytest.raises(EngineError, match=said) as caught:
            TrinoAccess(config(http_scheme="https", certificate_file=str(path)))
        assert f"plugins.compute.config.certificate_file {path}" in str(caught.value)


class Other(BaseHTTPRequestHandler):
    """A web server that is no Trino, or one that is not ready."""

    status, body = 200, b"<html>hello</html>"

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Starting(Other):
    body = json.dumps({"nodeVersion": {"version": "476"}, "starting": True}).encode()


class Overloaded(Other):
    status, body = 503, b"later"


@pytest.mark.parametrize(
    ("handler", "said", "transient"),
    [
        (Other, r"is no Trino \(HTTP 200\). Check plugins.compute.config.host", False),
        (Starting, "is still starting", True),
        (Overloaded, r"is no Trino \(HTTP 503\)", True),
    ],
)
def test_somebody_else_answers(handler: type[Other], said: str, transient: bool) -> None:
    with serving(handler) as address:
        access = TrinoAccess(config(port=int(address.rpartition(":")[2])))
        with pytest.raises(EngineError, match=said) as caught:
            access.check()
    assert caught.value.transient is transient


def test_nobody_answers() -> None:
    access = TrinoAccess(config())
    error = failure(access)
    assert error.transient
    assert str(error) == (
        "Trino at http://127.0.0.1:1 does not answer: nothing listens there. Check plugins.compute.config.host and port"
    )
    with pytest.raises(Exception, match="refused") as caught:
        access.connect().cursor().execute("select 1")
    assert str(access.error(caught.value)) == str(error)


def test_what_speaks_no_tls(tmp_path: Path) -> None:
    with serving(Starting) as address:
        port = int(address.rpartition(":")[2])
        error = failure(TrinoAccess(config(port=port, http_scheme="https")))
    assert "it does not speak TLS there. Check plugins.compute.config.http_scheme" in str(error)
    assert not error.transient


def test_a_certificate_is_trusted_that_the_manifest_names_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for folder in (right, wrong):
        folder.mkdir()
    known, other = self_signed(right), self_signed(wrong)
    with serving(Starting, known) as address:
        port = int(address.rpartition(":")[2])
        settings = config(port=port, host="localhost", http_scheme="https")
        # A variable for everything on this machine does not replace what the manifest names.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other[0]))
        assert "still starting" in str(failure(TrinoAccess({**settings, "certificate_file": str(known[0])})))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(known[0]))
        for untrusted in ({}, {"certificate_file": str(other[0])}):
            error = failure(TrinoAccess({**settings, **untrusted}))
            assert "its certificate is not trusted" in str(error)
            assert "plugins.compute.config.certificate_file" in str(error) and not error.transient


def test_links_and_addresses() -> None:
    access = TrinoAccess(config(host="trino.example", port=8080))
    assert access.query_url("20240101_1") == "http://trino.example:8080/ui/query.html?20240101_1"
    gateway = TrinoAccess(config(web_url="https://gate.example/trino/"))
    assert gateway.query_url("20240101_1") == "https://gate.example/trino/ui/query.html?20240101_1"
    assert access.user == "floe" and access.environment == {}
