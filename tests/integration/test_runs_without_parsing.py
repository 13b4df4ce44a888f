"""A run that begins with what the compilation has parsed is the run that would have parsed: on real dbt, in all that it does."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.dbt_command import NOT_USABLE
from floe_dagster.compilation.dbt_environment import dbt_environment
from floe_dagster.compilation.dbt_forks import NO_MANIFEST
from floe_dagster.compilation.dbt_server import DbtServer
from floe_dagster.compilation.parse_state import usable_state
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.compilation.profiles import TARGET, write_profiles
from floe_dagster.definitions.factory import build_product_definitions
from floe_dagster.home import FloeHome
from tests.conftest import MANIFEST

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each command is started by itself"),
]

SPEC = """\
apiVersion: floe.dev/v1
kind: FloeSpec
metadata: {name: shop, version: 1.0.0, owner: shop@example.com}
platform: {manifest: ../manifest.yaml}
environment: [SHOP_COUNTRY]
"""
FILES = {
    "floe.yaml": SPEC,
    "dbt_project.yml": (
        "name: shop\nversion: 1.0.0\nprofile: shop\nmodels: {+materialized: table}\n"
        "on-run-start: \"create or replace table main.began as select '{{ env_var('SHOP_COUNTRY', 'none') }}' as country\"\n"
    ),
    "packages.yml": "packages: [{local: packages/helpers}]\n",
    "packages/helpers/dbt_project.yml": "name: helpers\nversion: 1.0.0\n",
    "packages/helpers/macros/seven.sql": "{% macro seven() %}7{% endmacro %}\n",
    "packages/helpers/macros/positive.sql": (
        "{% test positive(model, column_name) %}select * from {{ model }} where {{ column_name }} <= 0{% endtest %}\n"
    ),
    "packages/helpers/seeds/countries.csv": "country\nCH\nDE\n",
    "seeds/raw.csv": "id,amount,placed\n1,10,2026-01-01\n2,20,2026-01-02\n3,30,2026-01-03\n",
    "models/orders.sql": "select id, amount + {{ helpers.seven() }} as amount, placed::timestamp as placed from {{ ref('raw') }}\n",
    "models/doubled.sql": "{{ config(materialized='ephemeral') }} select id, amount * 2 as amount from {{ ref('orders') }}\n",
    "models/daily.sql": (
        "{{ config(materialized='incremental', unique_key='id') }}\n"
        "select id, amount, {% if is_incremental() %}'increment'{% else %}'whole'{% endif %} as how from {{ ref('doubled') }}\n"
    ),
    "models/batches.sql": (
        "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='placed', batch_size='year',"
        " begin='2025-01-01', lookback=1) }}\nselect id, placed from {{ ref('orders') }}\n"
    ),
    "models/seen.sql": "select {{ graph.nodes | length }} as nodes, {{ graph.nodes.values() | map(attribute='unique_id') | join | length }} as n\n",
    "models/off.sql": "{{ config(enabled=false) }} select 1 as one\n",
    "models/_models.yml": """\
models:
  - name: orders
    config: {event_time: placed}
    columns:
      - {name: id, data_tests: [unique, not_null]}
      - {name: amount, data_tests: [helpers.positive]}
  - name: seen
    columns:
      - {name: nodes, data_tests: [{accepted_values: {arguments: {values: [0]}, config: {severity: warn}}}]}
unit_tests:
  - name: seven_more
    model: orders
    given: [{input: ref('raw'), format: csv, fixture: raw_rows}]
    expect: {rows: [{id: 1, amount: 8}]}
""",
    "tests/fixtures/raw_rows.csv": "id,amount,placed\n1,1,2026-01-01\n",
    "tests/no_gaps.sql": "select * from {{ ref('daily') }} where amount is null\n",
    "snapshots/kept.yml": (
        "snapshots: [{name: kept, relation: ref('orders'), config: {unique_key: id, strategy: check, check_cols: [amount]}}]\n"
    ),
}
PARSES = frozenset(
    {"StateCheckVarsHash", "UnableToPartialParse", "PartialParsingEnabled", "ParsedFileLoadFailed"}
)
"""dbt's events of a parse: the first one comes with each, also where no file has changed since the last."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project")


@pytest.fixture(scope="module")
def product(folder: Path) -> Path:
    (folder / "workspace.yaml").write_text("load_from: []\n")
    (folder / "manifest.yaml").write_text(MANIFEST + "governance: {environment: [SHOP_COUNTRY]}\n")
    for name, text in FILES.items():
        (folder / "shop" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "shop" / name).write_text(text)
    return folder / "shop"


@pytest.fixture(scope="module")
def bundle(product: Path, folder: Path) -> Bundle:
    result = compile_product(product, home=FloeHome(folder / "compiled"))
    assert result.bundle is not None and not [f for f in result.findings if f.severity == "error"], (
        result.findings
    )
    return result.bundle


@pytest.fixture(scope="module")
def server() -> Iterator[DbtServer]:
    made = DbtServer()
    yield made
    made.close()


@dataclass(frozen=True, slots=True)
class Built:
    """What a `dbt build` did.

    Args:
        events: Names of the events that it logged.
        statuses: Of its results, by unique id.
        tables: Columns and rows of all that it built, by name.
    """

    events: list[str]
    statuses: Mapping[str, tuple[str, Any]]
    tables: Mapping[str, Any]


def build(
    server: DbtServer,
    bundle: Bundle,
    home: FloeHome,
    *args: str,
    parses: bool = False,
    state: bytes | None = None,
) -> Built:
    """Run what a bundle holds as a run does, with dbt's own log as detailed as it is."""
    project = bundle.unpack(home).project_dir
    profiles = write_profiles(bundle.artifact().dbt_profiles or {}, home.profiles_dir("shop"), home)
    target = home.dbt_target_dir("shop")
    environment = {
        **dbt_environment(home),
        "DBT_LOG_FORMAT": "json",
        "DBT_TARGET_PATH": str(target),
        "DBT_LOG_PATH": str(home.logs_dir("shop")),
        "DBT_PROJECT_DIR": str(project),
    }
    path = None
    if not parses:
        found = usable_state(
            bundle, "duckdb", environment, variables={}, full_refresh="--full-refresh" in args
        )
        assert found.content is not None, found.why_not
        path = target / "parsed.msgpack"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(state or found.content)
    command = [
        "--log-level",
        "debug",
        "build",
        "--write-json",
        "--profiles-dir",
        str(profiles),
        "--profile",
        "shop",
    ]
    process = server.start([*command, "--target", TARGET, *args], env=environment, cwd=project, state=path)
    try:
        assert process.stdout is not None
        lines = process.stdout.read().decode().splitlines()
        assert process.wait(60) == 0, "\n".join(lines[-20:])
    finally:
        process.close()
    results = json.loads((target / "run_results.json").read_bytes())["results"]
    statuses = {result["unique_id"]: (result["status"], result["failures"]) for result in results}
    events = [json.loads(line)["info"]["name"] for line in lines]
    return Built(events, statuses, tables(home.duckdb_dir / "shop.duckdb"))


def tables(file: Path) -> dict[str, Any]:
    """Return columns and rows of all tables; the times at which a snapshot was taken are left out."""
    found = {}
    with duckdb.connect(str(file), read_only=True) as con:
        for (name,) in con.sql(
            "select table_name from information_schema.tables where table_schema = 'main'"
        ).fetchall():
            named = con.sql(f"select * from main.{name} limit 0").columns
            kept = ", ".join(column for column in named if not column.startswith("dbt_"))
            relation = con.sql(f"select {kept} from main.{name} order by all")
            found[name] = (relation.columns, relation.types, relation.fetchall())
    return found


STEPS: Sequence[tuple[str, ...]] = (
    ("--select", "orders+", "raw", "--exclude", "seen"),
    (),
    (),
    ("--full-refresh",),
    ("--select", "resource_type:seed", "test_type:unit"),
)


def test_the_same_is_built_and_tested_as_with_a_parse(
    server: DbtServer, bundle: Bundle, tmp_path: Path
) -> None:
    begun, parsed = FloeHome(tmp_path / "begun"), FloeHome(tmp_path / "parsed")
    for args in STEPS:
        one = build(server, bundle, begun, *args)
        other = build(server, bundle, parsed, *args, parses=True)
        assert not PARSES.intersection(one.events)
        assert "StateCheckVarsHash" in other.events
        assert one.statuses == other.statuses
        assert one.tables == other.tables
        if not args:
            kinds = {key.split(".")[0] for key in one.statuses}
            assert kinds == {"model", "seed", "snapshot", "test", "unit_test", "operation"}
            assert one.statuses["model.shop.batches"][0] == "success"
            assert {"orders", "daily", "batches", "kept", "countries", "began"} <= one.tables.keys()
    assert {row[2] for row in one.tables["daily"][2]} == {"whole"}


def test_what_dbt_cannot_read_is_parsed_and_told(server: DbtServer, bundle: Bundle, home: FloeHome) -> None:
    built = build(server, bundle, home, "--select", "+orders", state=NO_MANIFEST)
    assert built.events[0] == NOT_USABLE and "StateCheckVarsHash" in built.events
    assert built.statuses["model.shop.orders"][0] == "success"


def test_two_places_carry_the_same(bundle: Bundle, product: Path, tmp_path: Path) -> None:
    again = compile_product(
        product, home=FloeHome(tmp_path / "other"), environ={"PATH": "/usr/bin:/bin"}
    ).bundle
    assert again is not None
    for name in ("parsed/duckdb.json", "parsed/duckdb.msgpack"):
        assert again.read(name) == bundle.read(name)


def messages(instance: dg.DagsterInstance, run_id: str) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(run_id))


def execute(
    bundle: Bundle, product: Path, home: FloeHome, instance: dg.DagsterInstance, **config: Any
) -> str:
    """Run the product in Dagster, and return what its log and dbt's own say of parsing."""
    job = build_product_definitions(bundle, product_dir=product, home=home).resolve_job_def("shop_run")
    ran = job.execute_in_process(
        instance=instance,
        run_config={"ops": {"shop_dbt": {"config": config}}},
        asset_selection=[dg.AssetKey(["shop", "orders"])],
    )
    assert ran.success
    said = messages(instance, ran.run_id) + (home.logs_dir("shop") / "dbt.log").read_text()
    return "\n".join(line for line in said.splitlines() if "dbt parses" in line or "partial parsing" in line)


def test_a_run_in_a_new_place_parses_nothing(
    bundle: Bundle,
    product: Path,
    home: FloeHome,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert execute(bundle, product, home, instance) == ""
    # A run that sets vars may build another graph.
    told = execute(bundle, product, home, instance, vars={"day": 1})
    assert "dbt parses the project: this run sets vars" in told and "partial parsing" in told
    (home.logs_dir("shop") / "dbt.log").unlink()
    monkeypatch.setenv("SHOP_COUNTRY", "DE")
    told = execute(bundle, product, home, instance)
    assert (
        "dbt parses the project: not every environment variable that the project reads (SHOP_COUNTRY)" in told
    )


def test_a_bundle_that_carries_nothing_is_parsed(
    bundle: Bundle, product: Path, home: FloeHome, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with zipfile.ZipFile(bundle.path) as old, zipfile.ZipFile(tmp_path / "old.zip", "w") as new:
        for entry in old.infolist():
            if not entry.filename.startswith("parsed/"):
                new.writestr(entry, old.read(entry))
    told = execute(Bundle.open(tmp_path / "old.zip"), product, home, instance)
    assert "compiled by another version" in told and "partial parsing" in told
