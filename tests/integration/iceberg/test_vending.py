"""Publication with keys that the catalog gives out, by a manifest that says nothing of it and has keys of its own, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.catalog.rest.scan_planning import StorageCredential

from floe_dagster.cli import main
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.errors import NotUsableError
from floe_dagster.iceberg.files import list_files, reachable_files
from floe_dagster.iceberg.vended import layered, longest_prefix
from floe_dagster.platform.check import check_platform
from tests.rest_server.catalog import Given
from tests.rest_server.lending import (
    ENVIRONMENT,
    NAMESPACE,
    STATIC_KEY,
    WAYS,
    Lending,
    Way,
    as_polaris,
    lending,
    nothing,
)
from tests.rest_server.store import KeyedStore, as_properties, keyed_store


@pytest.fixture
def store() -> Iterator[KeyedStore]:
    with keyed_store() as made:
        yield made


@pytest.fixture
def lent(store: KeyedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lending]:
    # Nothing of this machine's own may help, or make the client ask for an instance's identity.
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with lending(tmp_path / "server", store) as made:
        yield made


def rows(catalog: Any, table: str = "orders") -> list[tuple[Any, ...]]:
    found = catalog.load_table((NAMESPACE, table)).scan().to_arrow().to_pylist()
    return sorted(tuple(row.values()) for row in found)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_table_is_made_replaced_extended_and_read_with_what_the_server_gives(
    lent: Lending, home: FloeHome, way: Way
) -> None:
    lent.ways["*"] = way
    catalog = lent.open(home)
    first = lent.publish(catalog, home, "select range as id, 'a' as v from range(3)")
    assert first.created and first.rows == 3
    second = lent.publish(catalog, home, "select range as id, 'b' as v from range(2)")
    assert not second.created and second.rows == 2
    third = lent.publish(catalog, home, "select 1::bigint as id, 'c' as v", mode="upsert", key=("id",))
    assert (third.inserted, third.deleted) == (1, 1)
    assert rows(catalog) == [(0, "b"), (1, "c")]
    made = catalog.create_table((NAMESPACE, "plain"), pa.schema([("id", pa.int64())]))
    made.append(pa.table({"id": pa.array([7], pa.int64())}))
    assert rows(catalog, "plain") == [(7,)]
    table = catalog.load_table((NAMESPACE, "orders"))
    listed = {file.location for file in list_files(table.location(), table.io)}
    assert reachable_files(table.metadata, table.metadata_location, table.io).keys() <= listed
    assert set(lent.catalog.scopes) == {"PRINCIPAL_ROLE:ALL"} and lent.catalog.violations == []


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_keys_of_the_manifest_are_used_for_nothing(
    lent: Lending, home: FloeHome, store: KeyedStore, way: Way
) -> None:
    # They work: whoever used them would not be noticed otherwise.
    store.identities[STATIC_KEY] = store.identity("", session=False)
    lent.ways["*"] = way
    # What is never used does not have to be there, either.
    catalog = lent.open(home, {"CATALOG_SECRET": ENVIRONMENT["CATALOG_SECRET"]})
    lent.publish(catalog, home, "select 1 as id")
    lent.publish(catalog, home, "select 2 as id", mode="append")
    assert rows(catalog) == [(1,), (2,)]
    asked = {key for key, _place in store.used} | {key for key, _code, _place in store.refused}
    lent_keys = {key for key in store.identities if key in lent.lent}
    server = {lent.catalog.catalog.properties["s3.access-key-id"]}
    assert asked <= lent_keys | server and asked & lent_keys and STATIC_KEY not in asked


def test_each_file_is_opened_with_the_keys_of_its_longest_prefix(
    lent: Lending, home: FloeHome, store: KeyedStore
) -> None:
    def way(lending: Lending, location: str) -> Given:
        everything = lending.lend(location)
        data = lending.lend(f"{location}/data")
        return Given({}, ((f"{location}/data/", data), (location, everything)))

    lent.ways["*"] = way
    catalog = lent.open(home)
    lent.publish(catalog, home, "select range as id from range(10)")
    lent.publish(catalog, home, "select range as id from range(3)")
    assert len(rows(catalog)) == 3
    by_key: dict[str, set[str]] = {}
    for key, place in store.used:
        if key in lent.lent and not place.endswith("/"):
            by_key.setdefault(key, set()).add(place.rpartition("/")[0].rpartition("/")[2])
    assert {frozenset(parts) for parts in by_key.values()} == {frozenset({"data"}), frozenset({"metadata"})}


def test_keys_without_a_session_get_no_token_of_others(
    lent: Lending, home: FloeHome, store: KeyedStore
) -> None:
    def way(lending: Lending, location: str) -> Given:
        keys = as_properties(store.identity(location.partition("://")[2], session=False))
        return Given(lending.lend("s3://another-bucket"), ((location, keys),))

    lent.ways["*"] = way
    catalog = lent.open(home)
    lent.publish(catalog, home, "select 1 as id")
    assert rows(catalog) == [(1,)] and store.refused == []


@pytest.mark.parametrize("origin", ["the catalog's own settings", "the environment", "its config"])
def test_a_table_for_which_the_server_gives_nothing_stands_beside_one_for_which_it_does(
    lent: Lending, home: FloeHome, store: KeyedStore, monkeypatch: pytest.MonkeyPatch, origin: str
) -> None:
    keys = as_properties(store.identity(lent.bucket, session=False))
    if origin == "the catalog's own settings":
        lent.catalog.defaults |= keys
    elif origin == "the environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["s3.access-key-id"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["s3.secret-access-key"])
    lent.ways["others"] = nothing if origin != "its config" else lambda _lending, _location: Given(keys)
    catalog = lent.open(home)
    for table in ("orders", "others", "orders", "others"):
        lent.publish(catalog, home, "select 1 as id", table=table)
    assert rows(catalog, "orders") == rows(catalog, "others") == [(1,)]
    # One set of keys for all tables is nothing that takes the place of a table's own.
    used = {place.split("/")[3] for key, place in store.used if key == keys["s3.access-key-id"]}
    assert used == {"others"}


def test_where_nobody_gives_keys_it_is_said_whose_they_would_be(lent: Lending, home: FloeHome) -> None:
    lent.ways["*"] = nothing
    catalog = lent.open(home)
    with pytest.raises(NotUsableError) as refused:
        lent.publish(catalog, home, "select 1 as id")
    assert "credential_vending" in str(refused.value)
    assert not catalog.table_exists((NAMESPACE, "orders"))


def test_a_manifest_that_wants_no_keys_of_the_server_gets_none(
    lent: Lending, home: FloeHome, store: KeyedStore
) -> None:
    static = store.identity(lent.bucket, session=False)
    plugins = lent.plugins(credential_vending=False)
    assert plugins["storage"].config is not None
    plugins["storage"].config["access_key_id"] = static.access_key
    from floe_dagster.iceberg.catalogs import open_catalog

    catalog = open_catalog(**plugins, home=home, environ={**ENVIRONMENT, "STORAGE_SECRET": static.secret})
    lent.publish(catalog, home, "select 1 as id")
    assert rows(catalog) == [(1,)] and lent.lent == []
    server = lent.catalog.catalog.properties["s3.access-key-id"]
    assert {key for key, _place in store.used} <= {static.access_key, server}


def test_the_platform_s_check_passes(lent: Lending, home: FloeHome) -> None:
    checks = check_platform(**lent.plugins(), home=home, namespaces=(NAMESPACE,), environ=ENVIRONMENT)
    assert [(check.name, check.message) for check in checks if not check.passed] == []
    assert {"namespace", "storage"} <= {check.name for check in checks}


def test_the_server_s_region_counts_and_not_the_default(
    lent: Lending, home: FloeHome, store: KeyedStore
) -> None:
    def way(lending: Lending, location: str) -> Given:
        found = as_polaris(lending, location)
        return Given({**found.config, "client.region": "eu-central-1"}, found.credentials)

    lent.ways["*"] = way
    catalog = lent.open(home)
    store.regions.clear()
    lent.publish(catalog, home, "select 1 as id")
    # The server itself writes metadata as its administrator.
    assert store.regions == {"eu-central-1", "us-east-1"}
    assert catalog.load_table((NAMESPACE, "orders")).io.properties["s3.region"] == "eu-central-1"


@pytest.mark.parametrize("place", ["config", "credentials"])
def test_an_answer_against_the_protocol_is_told_without_what_is_in_it(
    lent: Lending, home: FloeHome, place: str
) -> None:
    def way(lending: Lending, location: str) -> Given:
        keys: dict[str, Any] = dict(lending.lend(location))
        # A number, and keys that are no text.
        broken = {
            **keys,
            "s3.session-token-expires-at-ms": 1764547200000,
            "s3.secret-access-key": [*keys.values()],
        }
        if place == "credentials":
            return Given({}, ((location, broken),))
        return Given({}, ((location, keys), (broken, {})))  # type: ignore[arg-type]

    lent.ways["*"] = way
    catalog = lent.open(home)
    with pytest.raises(
        NotUsableError, match="Iceberg REST protocol says of TableResponse: storage-credentials"
    ) as told:
        lent.publish(catalog, home, "select 1 as id")
    shown = "".join(_texts(told.value))
    assert lent.lent and not [secret for secret in lent.lent if secret in shown]
    checks = check_platform(**lent.plugins(), home=home, namespaces=(NAMESPACE,), environ=ENVIRONMENT)
    (broken,) = [check for check in checks if not check.passed]
    assert (
        broken.name == "namespace"
        and "Upgrade the catalog server" in broken.fix
        and "Grant" not in broken.fix
    )


def test_a_commit_whose_answer_cannot_be_read_is_looked_for(lent: Lending, home: FloeHome) -> None:
    catalog = lent.open(home)
    lent.publish(catalog, home, "select 1 as id")
    served = lent.catalog.answer
    broken: list[str] = []

    def answer(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
        status, said = served(method, path, headers, body)
        if method == "POST" and path.endswith("/tables/orders") and not broken:
            broken.append(path)
            return status, {"metadata-location": said["metadata-location"]}
        return status, said

    lent.catalog.answer = answer  # type: ignore[method-assign]
    result = lent.publish(catalog, home, "select 2 as id")
    assert broken and result.attempts == 2
    assert rows(catalog) == [(2,)]
    assert len(catalog.load_table((NAMESPACE, "orders")).metadata.snapshots) == 2


def test_nothing_that_a_table_shows_of_itself_holds_its_keys(lent: Lending, home: FloeHome) -> None:
    catalog = lent.open(home)
    lent.publish(catalog, home, "select 1 as id")
    table = catalog.load_table((NAMESPACE, "orders"))
    shown = repr([catalog, table, table.io, table.metadata]) + str(table)
    assert lent.lent and not [secret for secret in lent.lent if secret in shown]


@pytest.mark.slow
def test_a_run_by_the_shipped_kind_of_manifest_leaves_no_key_behind(
    lent: Lending,
    shop: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def broken(lending: Lending, location: str) -> Given:
        keys = lending.lend(location)
        return Given({}, ((location, {**keys, "s3.secret-access-key": [*keys.values()]}),))

    plugins = {
        name: {"type": plugin.type, "config": plugin.config} for name, plugin in lent.plugins().items()
    }
    manifest = shop.parent / "manifest.yaml"
    manifest.write_text(manifest.read_text() + yaml.safe_dump({"plugins": plugins}))
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CATALOG_SECRET", ENVIRONMENT["CATALOG_SECRET"])
    assert main(["run", str(shop)]) == 0
    assert rows(lent.open(FloeHome(tmp_path / "home"))) == [(1, "paid")]
    lent.ways["daily"] = broken
    assert main(["run", str(shop)]) == 1
    printed = "".join(capfd.readouterr())
    assert "Iceberg REST protocol says of TableResponse" in printed and "before another try" not in printed
    assert "CATALOG_MANAGE_CONTENT" not in printed and "Traceback" not in printed
    assert len(lent.lent) > 10 and not [secret for secret in lent.lent if secret in printed]
    secrets = [secret.encode() for secret in lent.lent]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if any(secret in path.read_bytes() for secret in secrets)] == []


def _texts(error: BaseException | None, seen: tuple[BaseException, ...] = ()) -> Iterator[str]:
    """Yield what is said of an exception wherever it is shown with what led to it."""
    if error is None or error in seen:
        return
    yield repr(error) + str(error)
    yield from _texts(error.__cause__, (*seen, error))
    if not error.__suppress_context__:
        yield from _texts(error.__context__, (*seen, error))


LOCATIONS = st.lists(st.sampled_from(["a", "b", "data", "metadata", ""]), max_size=4).map("/".join)


@given(prefixes=st.lists(LOCATIONS, max_size=6), location=LOCATIONS)
def test_of_all_prefixes_that_fit_the_longest_wins(prefixes: list[str], location: str) -> None:
    credentials = [StorageCredential(prefix=f"s3://b/{prefix}") for prefix in prefixes]
    found = longest_prefix(credentials, f"s3://b/{location}")
    fitting = [f"s3://b/{prefix}" for prefix in prefixes if location.startswith(prefix)]
    assert (found.prefix if found else None) == max(fitting, key=len, default=None)


NAMES = [
    f"{prefix}.{name}"
    for prefix in ("s3", "client")
    for name in ("access-key-id", "secret-access-key", "session-token")
]


@given(
    st.lists(
        st.dictionaries(st.sampled_from([*NAMES, "s3.endpoint", "x"]), st.sampled_from("xyz")), max_size=4
    )
)
def test_keys_are_of_one_layer_and_everything_else_of_the_last_that_names_it(
    layers: list[dict[str, str]],
) -> None:
    found = layered(*layers)
    with_keys = [layer for layer in layers if layer.keys() & set(NAMES)]
    wanted = {name: value for name, value in (with_keys[-1] if with_keys else {}).items() if name in NAMES}
    assert {name: value for name, value in found.items() if name in NAMES} == wanted
    for name in ("s3.endpoint", "x"):
        named = [layer[name] for layer in layers if name in layer]
        assert found.get(name) == (named[-1] if named else None)


@pytest.mark.parametrize(
    ("below", "given_", "wanted"),
    [
        ({"s3.region": "us-east-1"}, {"client.region": "eu-west-1"}, {"s3.region": "eu-west-1"}),
        ({"s3.region": "a"}, {"client.region": "b", "s3.region": "c"}, {"s3.region": "c"}),
        (
            {"s3.force-virtual-addressing": "true"},
            {"s3.path-style-access": "true"},
            {"s3.force-virtual-addressing": "false"},
        ),
        (
            {"s3.force-virtual-addressing": "false"},
            {"s3.path-style-access": "False"},
            {"s3.force-virtual-addressing": "true"},
        ),
        ({"s3.force-virtual-addressing": "false"}, {"x": "y"}, {"s3.force-virtual-addressing": "false"}),
    ],
)
def test_what_a_server_says_in_the_words_of_java_counts(
    below: dict[str, str], given_: dict[str, str], wanted: dict[str, str]
) -> None:
    found = layered(below, given_)
    assert {name: found[name] for name in wanted} == wanted
