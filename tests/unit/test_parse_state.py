"""When a run may begin with what the compilation has parsed: not where the project's Jinja could give something else."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import msgpack
import pytest

from floe_dagster.compilation.bundle import Bundle, write_bundle
from floe_dagster.compilation.parse_reads import ParseReads, parse_reads
from floe_dagster.compilation.parse_state import OTHER_COMPILATION, ParseState, parse_state, usable_state


def reads(folder: Path, name: str, text: str) -> ParseReads:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return parse_reads(folder)


def test_variables_of_the_environment_are_found_wherever_jinja_is_read(tmp_path: Path) -> None:
    reads(tmp_path, "models/a.sql", "select '{{ env_var(\"ONE\") }}' as one\n")
    reads(tmp_path, "dbt_packages/other/dbt_project.yml", "name: \"{{ env_var('TWO', 'x') }}\"\n")
    assert reads(tmp_path, "models/b.sql", "{# {{ env_var('THREE') }} #} select 1") == ParseReads(
        ("ONE", "TWO")
    )


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("models/a.sql", "{{ env_var(name) }}", "not written there"),
        ("models/a.sql", "{% set read = env_var %}", "not written there"),
        ("models/a.sql", "{{ config(location=target.path) }}", "target.path"),
        ("models/a.sql", "{{ target }}", "reads target"),
        ("dbt_project.yml", "x: \"{{ 'a' if flags.FULL_REFRESH else 'b' }}\"", "flags"),
        ("macros/m.sql", "{% macro m() %}{{ invocation_args_dict }}{% endmacro %}", "invocation_args_dict"),
        ("models/_m.yml", 'begin: "{{ run_started_at }}"', "run_started_at"),
        ("models/a.sql", "{{ config(begin=modules.datetime.date.today()) }}", "modules.datetime"),
        ("models/a.sql", "{% if run_started_at.hour %}{{ ref('b') }}{% endif %}", "run_started_at"),
        (
            "macros/m.sql",
            "{% macro generate_alias_name(a, b) %}{{ invocation_id }}{% endmacro %}",
            "generate_alias_name",
        ),
    ],
)
def test_what_each_command_has_to_parse_for_itself(tmp_path: Path, name: str, text: str, why: str) -> None:
    found = reads(tmp_path, name, text).command
    assert found is not None and why in found and name in found


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("models/a.sql", "select '{{ run_started_at }}' as at, '{{ invocation_id }}' as run, target.flags"),
        ("models/a.sql", "select 1 -- {{ target.name }} {{ target.schema }} {{ ref('target') }}"),
        ("macros/m.sql", "{% macro loaded_at() %}{% set at = run_started_at %}{{ at }}{% endmacro %}"),
        ("macros/m.sql", "{% macro get_merge_sql(target, source) %}merge {{ target }}{% endmacro %}"),
        ("models/a.md", "what the flags of the target say"),
    ],
)
def test_what_is_the_same_wherever_it_is_parsed(tmp_path: Path, name: str, text: str) -> None:
    assert reads(tmp_path, name, text) == ParseReads()


def test_a_macro_that_asks_for_the_time_counts_where_a_setting_calls_it(tmp_path: Path) -> None:
    now = "{% macro now() %}{{ return(run_started_at) }}{% endmacro %}"
    week = "{% macro last_week() %}{{ return(now() - 7) }}{% endmacro %}"
    reads(tmp_path, "macros/now.sql", now)
    assert reads(tmp_path, "macros/week.sql", week).command is None
    found = reads(tmp_path, "models/a.sql", "{{ config(begin=last_week()) }} select 1").command
    assert found is not None and "last_week" in found


def test_a_full_refresh_may_parse_to_something_else(tmp_path: Path) -> None:
    assert reads(
        tmp_path, "models/a.sql", "{% if should_full_refresh() %}{{ ref('b') }}{% endif %}"
    ).full_refresh


MANIFEST = {
    "metadata": {
        "project_name": "shop",
        "dbt_version": "1.11.16",
        "invocation_id": "the-invocation",
        "env": {"X": "1"},
    },
    "nodes": {
        "seed.shop.b": {"package_name": "shop", "root_path": "/somewhere/shop", "created_at": 1.5},
        "seed.other.a": {"package_name": "other", "root_path": "/somewhere/shop/dbt_packages/other"},
    },
    "env_vars": {"SEEN": "hunter2", "WITH_DEFAULT": "DBT_DEFAULT_PLACEHOLDER"},
    "files": {"shop://a.sql": {"project_name": "shop", "path": {"project_root": "/somewhere/shop"}}},
    "disabled": {"model.shop.c": [{"config": {"alias": "hunter2"}}]},
    "state_check": {"project_env_vars_hash": {"checksum": "of hunter2"}},
}


def state(folder: Path, environ: Mapping[str, str], manifest: Any = MANIFEST, **changes: Any) -> ParseState:
    (folder / "partial").write_bytes(msgpack.packb(manifest))
    given: dict[str, Any] = {"reads": ParseReads(), "listed": (), "places": (), **changes}
    return parse_state(folder, folder / "partial", "duckdb", given.pop("reads"), environ, **given)


def test_nothing_of_the_machine_nor_of_its_environment_is_carried(tmp_path: Path) -> None:
    made = state(tmp_path, {"SEEN": "hunter2"}, reads=ParseReads(("WRITTEN",)))
    assert made.content is not None and made.why_not is None
    everything = b"".join(made.documents("duckdb").values())
    for secret in (b"hunter2", b"/somewhere", b"the-invocation"):
        assert secret not in everything
    assert made.reads == ("SEEN", "WITH_DEFAULT", "WRITTEN")
    manifest = msgpack.unpackb(made.content)
    assert [*manifest["nodes"]] == ["seed.other.a", "seed.shop.b"]
    assert manifest["nodes"]["seed.shop.b"] == {"package_name": "shop", "root_path": "."}
    assert manifest["nodes"]["seed.other.a"]["root_path"] == "dbt_packages/other"
    assert made.versions == {name: metadata.version(name) for name in ("dbt-core", "dbt-duckdb")}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"places": [Path("/elsewhere")]}, "paths of the machine"),
        ({"reads": ParseReads(command="models/a.sql reads flags")}, "reads flags"),
        ({"manifest": {"nodes": 1}}, "cannot be read"),
    ],
)
def test_what_is_not_carried(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    manifest = {**MANIFEST, "nodes": {"model.shop.a": {"config": {"location": "/elsewhere/x"}}}}
    made = state(tmp_path, {}, **{"manifest": manifest, **changes})
    assert made.content is None and why in str(made.why_not)
    (document,) = made.documents("duckdb").values()
    assert json.loads(document)["why_not"] == made.why_not


@pytest.fixture
def bundled(tmp_path: Path) -> Callable[[Mapping[str, bytes]], Bundle]:
    def write(documents: Mapping[str, bytes]) -> Bundle:
        write_bundle(
            tmp_path / "shop.zip",
            digest="sha256:" + "ab" * 32,
            slug="shop",
            product_name="shop",
            documents=dict(documents),
            sources_root=tmp_path,
            sources=[],
            project="shop",
        )
        return Bundle.open(tmp_path / "shop.zip")

    return write


def usable(bundle: Bundle, environ: Mapping[str, str], **asked: Any) -> ParseState:
    return usable_state(bundle, "duckdb", environ, **{"variables": {}, "full_refresh": False, **asked})


def test_a_run_begins_with_it_where_all_is_as_it_was(
    tmp_path: Path, bundled: Callable[[Mapping[str, bytes]], Bundle]
) -> None:
    made = state(tmp_path, {"SEEN": "hunter2", "PATH": "/bin"})
    bundle = bundled(made.documents("duckdb"))
    assert usable(bundle, {"SEEN": "hunter2", "PATH": "/usr/bin"}) == made
    for environ in ({"SEEN": "hunter3"}, {}, {"SEEN": "hunter2", "WITH_DEFAULT": "set"}):
        why = usable(bundle, environ).why_not
        assert why is not None and "SEEN" in why and "hunter" not in why
    assert "vars" in str(usable(bundle, {"SEEN": "hunter2"}, variables={"day": 1}).why_not)
    assert usable(bundle, {"SEEN": "hunter2"}, full_refresh=True) == made


def test_a_full_refresh_parses_where_the_project_asks_for_it(
    tmp_path: Path, bundled: Callable[[Mapping[str, bytes]], Bundle]
) -> None:
    bundle = bundled(state(tmp_path, {}, reads=ParseReads(full_refresh=True)).documents("duckdb"))
    assert usable(bundle, {}).content is not None
    assert "full refresh" in str(usable(bundle, {}, full_refresh=True).why_not)


def test_what_another_dbt_or_nobody_has_parsed(
    tmp_path: Path, bundled: Callable[[Mapping[str, bytes]], Bundle]
) -> None:
    documents = state(tmp_path, {}).documents("duckdb")
    facts = json.loads(documents["parsed/duckdb.json"])
    facts["versions"]["dbt-core"] = "1.11.0"
    why = usable(bundled({**documents, "parsed/duckdb.json": json.dumps(facts).encode()}), {}).why_not
    assert why is not None and "dbt-core 1.11.0" in why and metadata.version("dbt-core") in why
    assert usable(bundled({}), {}).why_not == OTHER_COMPILATION


@pytest.mark.parametrize("damage", ["no facts", "other facts", "no content", "cut off"])
def test_what_is_damaged_is_not_used(
    tmp_path: Path, bundled: Callable[[Mapping[str, bytes]], Bundle], damage: str
) -> None:
    documents = state(tmp_path, {}).documents("duckdb")
    if damage == "no facts":
        documents["parsed/duckdb.json"] = b"{"
    elif damage == "other facts":
        documents["parsed/duckdb.json"] = b'{"reads": [], "more": 1}'
    elif damage == "no content":
        del documents["parsed/duckdb.msgpack"]
    bundle = bundled(documents)
    if damage == "cut off":
        with zipfile.ZipFile(bundle.path) as archive:
            offset = archive.getinfo("parsed/duckdb.msgpack").header_offset + 60
        content = bytearray(bundle.path.read_bytes())
        content[offset] ^= 0xFF
        bundle.path.write_bytes(bytes(content))
    assert "damaged" in str(usable(bundle, {}).why_not)
