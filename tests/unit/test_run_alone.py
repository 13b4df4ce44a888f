"""One run by itself, without Dagster: dbt's part is scripted, and what it says is built is really there to be published."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from floe_dagster.compilation.bundle import ARTIFACT, ASSET_INDEX, DBT_MANIFEST, REPORT, Bundle, write_bundle
from floe_dagster.compilation.profiles import build_dbt_profiles, duckdb_file
from floe_dagster.execution.context import RunContext, RunIdentity, RunOptions, Selection
from floe_dagster.execution.dbt_process import DbtProgram
from floe_dagster.execution.errors import DbtError, FaultError, RemoteError, RunError, WithheldError
from floe_dagster.execution.results import CarriedOver, Checked, CheckedEarlier, Published, Result
from floe_dagster.execution.run import ProductRun
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.errors import CatalogError, NotUsableError
from floe_dagster.iceberg.publication import PublicationResult
from floe_dagster.schemas.artifacts import (
    ArtifactMetadata,
    CompiledArtifacts,
    ObservabilityConfig,
    ProductIdentity,
)
from floe_dagster.schemas.product_index import Asset
from floe_dagster.schemas.product_index_json import index_to_json
from tests.index import asset, check, product_index

DIGEST = "sha256:" + "ab" * 32
ORDERS, DAILY, UNIQUE = "model.shop.orders", "model.shop.daily", "test.shop.unique_orders_id.1"
PROFILES = build_dbt_profiles("shop", "duckdb", {})
BUILT = {ORDERS: "create or replace table main.orders as select 1 as id, 'paid' as status"}
BUILT[DAILY] = "create or replace table main.daily as select count(*) as n from main.orders"


INDEX = product_index([asset(DAILY, ORDERS), asset(ORDERS)], [check(UNIQUE, ORDERS, name="unique_orders_id")])


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    artifact = CompiledArtifacts(
        metadata=ArtifactMetadata(
            compiled_at=datetime(2026, 1, 1, tzinfo=UTC),
            floe_version="0.1.0",
            source_hash=DIGEST,
            product_name="shop",
            product_version="1.0.0",
        ),
        identity=ProductIdentity(product_id="default.shop", domain="default"),
        observability=ObservabilityConfig(),
        dbt_profiles=PROFILES,
    )
    sources = tmp_path / "sources"
    (sources / "shop").mkdir(parents=True)
    (sources / "shop" / "dbt_project.yml").write_text("name: shop\n")
    write_bundle(
        tmp_path / "shop.zip",
        digest=DIGEST,
        slug="shop",
        product_name="shop",
        documents={
            ARTIFACT: artifact.model_dump_json().encode(),
            ASSET_INDEX: index_to_json(INDEX),
            DBT_MANIFEST: b"{}",
            REPORT: b"{}",
        },
        sources_root=sources,
        sources=["shop/dbt_project.yml"],
        project="shop",
    )
    return Bundle.open(tmp_path / "shop.zip")


def ended(lines: Sequence[str], returncode: int) -> subprocess.Popen[bytes]:
    """Start a process that says all of this and ends so."""
    text = "".join(f"{line}\n" for line in lines)
    code = f"import sys; sys.stdout.write({text!r}); sys.exit({returncode})"
    # It leads a group, as each process does that a run starts: what goes to the group reaches nobody else.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE, start_new_session=True
    )


@dataclass
class ScriptedDbt:
    """Builds what it is asked for, in the product's DuckDB file, and gives results as scripted.

    Args:
        home: Where the file lies.
        statuses: dbt's status by unique id, where it is another one than of what goes well.
        dies_saying: An error of dbt before it ran a node.
    """

    home: FloeHome
    statuses: Mapping[str, str] = field(default_factory=dict)
    dies_saying: str | None = None
    started: list[set[str]] = field(default_factory=list)

    def __call__(
        self, args: Sequence[str], env: Mapping[str, str], cwd: Path, state: Path | None = None
    ) -> subprocess.Popen[bytes]:
        assert (cwd / "dbt_project.yml").exists() and "build" in args
        state = Path(args[args.index("--state") + 1]) / "run_results.json"
        asked = {result["unique_id"] for result in json.loads(state.read_bytes())["results"]}
        self.started.append(asked)
        if self.dies_saying is not None:
            return ended([said(self.dies_saying, "error")], 2)
        results = []
        with duckdb.connect(str(duckdb_file(PROFILES, "shop", self.home))) as con:
            for key in (ORDERS, UNIQUE, DAILY):
                if key in asked:
                    status = self.statuses.get(key, "success" if key in BUILT else "pass")
                    if status == "success":
                        con.execute(BUILT[key])
                    results.append({"unique_id": key, "status": status, "message": status})
        target = Path(env["DBT_TARGET_PATH"])
        target.mkdir(parents=True, exist_ok=True)
        (target / "run_results.json").write_text(json.dumps({"results": results}))
        return ended(["a library says something", said("1 of 2 OK", "info")], 0)


def said(message: str, level: str) -> str:
    return json.dumps({"info": {"name": "LogModelResult", "level": level, "msg": message}, "data": {}})


class Told:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.error: BaseException | None = None

    def catalog_opened(self, catalog: Any) -> None:
        self.heard.append("catalog opened")

    def dbt_event(self, event: Mapping[str, Any]) -> None:
        self.heard.append(event["info"]["msg"])

    def audited(self, outcome: Any) -> None:
        self.heard.append("audited")

    @contextmanager
    def publishing(self, asset: Asset) -> Iterator[list[PublicationResult]]:
        yield []

    def done(self, built: Any) -> None:
        self.heard.append(f"done {built.asset}")

    def refused(self, key: str, reason: str) -> None:
        self.heard.append(f"refused {key}")

    def requests(self, counts: Mapping[str, int]) -> None:
        self.heard.append("requests")

    def ended(self, error: BaseException | None) -> None:
        self.heard.append("ended")
        self.error = error


class Earlier:
    """What earlier attempts have recorded: all that they have published, and the tests."""

    def recorded(self, snapshots: Mapping[str, int]) -> set[str]:
        return set(snapshots)

    def checked(self, tests: Any) -> set[str]:
        return set(tests)


@pytest.fixture
def context(home: FloeHome) -> RunContext:
    return RunContext(
        identity=RunIdentity("one", "one"),
        selection=Selection(frozenset({ORDERS, DAILY}), frozenset({UNIQUE})),
        options=RunOptions(),
        dbt=DbtProgram("dbt", start=ScriptedDbt(home)),
        open_catalog=lambda: open_catalog(None, None, home=home),
        earlier=Earlier(),
        observer=Told(),
        log=logging.getLogger("tests.run_alone"),
    )


Run = Callable[..., list[Result]]


@pytest.fixture
def run(context: RunContext, bundle: Bundle, home: FloeHome) -> Run:
    def execute(**changes: Any) -> list[Result]:
        return list(ProductRun(replace(context, **changes), bundle, bundle.index(), home).execute())

    return execute


def rows(home: FloeHome, table: str) -> Any:
    return open_catalog(None, None, home=home).load_table(("shop", table)).scan().to_arrow().to_pylist()


def test_what_passes_is_published_in_the_order_of_the_graph(
    run: Run, home: FloeHome, context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    first, checked, second = run()
    assert isinstance(first, Published) and isinstance(second, Published) and isinstance(checked, Checked)
    assert (first.asset, checked.test, second.asset) == (ORDERS, UNIQUE, DAILY)
    assert first.publication.rows == 1 and first.columns == (("id", "int"), ("status", "string"))
    assert first.description is not None and first.description.rows == 1
    assert checked.dbt_result["status"] == "pass"
    assert rows(home, "orders") == [{"id": 1, "status": "paid"}] and rows(home, "daily") == [{"n": 1}]
    assert isinstance(context.observer, Told)
    assert context.observer.heard == [
        "catalog opened",
        "1 of 2 OK",
        "audited",
        f"done {ORDERS}",
        f"done {DAILY}",
        "requests",
        "ended",
    ]
    # What dbt says is printed, in the format of the manifest.
    printed = [json.loads(line)["message"] for line in capsys.readouterr().out.splitlines()]
    assert printed == ["a library says something", "1 of 2 OK"]


def test_a_test_that_fails_withholds_its_table_and_what_reads_it(
    run: Run, home: FloeHome, context: RunContext
) -> None:
    results: list[Result] = []
    failing = DbtProgram("dbt", start=ScriptedDbt(home, {UNIQUE: "fail"}))
    with pytest.raises(WithheldError) as raised:
        results += run(dbt=failing)
    assert raised.value.reasons == {
        "orders": "test unique_orders_id failed: fail",
        "daily": "it reads orders, which was withheld",
    }
    assert not raised.value.transient and str(raised.value).startswith("not published, their last snapshots")
    assert not open_catalog(None, None, home=home).table_exists(("shop", "orders"))
    assert isinstance(context.observer, Told) and context.observer.error is raised.value


@pytest.mark.parametrize(
    ("saying", "transient"),
    [("Compilation Error in model orders", False), ("IO Error: No space left on device", True)],
)
def test_dbt_that_ends_before_it_ran_a_node_says_whether_another_try_helps(
    run: Run, home: FloeHome, saying: str, transient: bool
) -> None:
    with pytest.raises(DbtError, match=saying) as raised:
        run(dbt=DbtProgram("dbt", start=ScriptedDbt(home, dies_saying=saying)))
    assert raised.value.transient == transient


@pytest.mark.parametrize(
    ("error", "kind", "transient"),
    [
        (CatalogError("it does not answer"), RemoteError, True),
        (NotUsableError("it refuses"), RemoteError, False),
        (ConnectionError("refused"), ConnectionError, None),
        (KeyError("seven"), FaultError, False),
    ],
    ids=["away", "refuses", "unknown", "fault"],
)
def test_an_error_of_a_run_is_permanent_or_passes(
    run: Run, error: Exception, kind: type[Exception], transient: bool | None
) -> None:
    def fail() -> Any:
        raise error

    with pytest.raises(kind) as raised:
        run(open_catalog=fail)
    if isinstance(raised.value, RunError):
        assert raised.value.transient == transient and raised.value.__cause__ is error


def test_another_attempt_repeats_nothing_that_stands(run: Run, home: FloeHome) -> None:
    failing = DbtProgram("dbt", start=ScriptedDbt(home, {DAILY: "error"}))
    with pytest.raises(WithheldError):
        run(dbt=failing)
    dbt = ScriptedDbt(home)
    resumed = RunIdentity("two", "one", is_resumed=True)
    waiting = Selection(frozenset({ORDERS, DAILY}), frozenset({UNIQUE}), repeats_carried_over=True)
    results = run(identity=resumed, selection=waiting, dbt=DbtProgram("dbt", start=dbt))
    assert dbt.started == [{DAILY}]
    assert [type(result) for result in results] == [CarriedOver, CheckedEarlier, Published]
    assert isinstance(results[0], CarriedOver) and (results[0].table, results[0].rows) == ("shop.orders", 1)
    # A run of another group knows nothing of it.
    fresh = ScriptedDbt(home)
    run(identity=RunIdentity("three", "three", is_resumed=True), dbt=DbtProgram("dbt", start=fresh))
    assert fresh.started == [{ORDERS, DAILY, UNIQUE}]
