"""A story as a dbt project, and as the queries of which dbt makes relations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duckdb

from tests.graphs.story import SOURCES, Node, Step, Story, Test

TOLD = "main.told"
"""Holds what fails in a run: a model whose name stands there cannot be built, a test finds a row."""
FAILS = "{% test fails_when_told(model, told, compared=none) %}\n" + (
    "select 1 as wrong from main.told where name = '{{ told }}' and (select count(*) from {{ model }}) >= 0"
    "{% if compared %} and (select count(*) from {{ compared }}) >= 0{% endif %}\n{% endtest %}\n"
)
Refer = Callable[[str], str]


def query(node: Node, story: Story, refer: Refer) -> str:
    """Return the SELECT of a node.

    Args:
        node: No seed.
        story: That it belongs to.
        refer: Gives what stands in SQL for the name of a node or source.
    """
    parts = []
    for name in node.reads:
        read = refer(name)
        if name in story.by_name and story.by_name[name].kind == "snapshot":
            read = f"(select distinct key || '@' || seen as key, seen from {read})"
        parts.append(f"select '{node.name}<' || key as key, seen from {read}")
    if node.can_fail:
        # What is told there is no number.
        parts.append(
            f"select cast(cast(code as integer) as varchar), 0 from {TOLD} where name = '{node.name}'"
        )
    parts += [f"select code, 0 from {TOLD} where name = '{unit}'" for unit in story.unit_tests(node.name)]
    return "\nunion all ".join(parts)


def singular(test: Test, refer: Refer) -> str:
    """Return the SELECT of a test: it reads all that it has to, and finds a row where it is told to."""
    read = "".join(f" and (select count(*) from {refer(name)}) >= 0" for name in test.reads)
    return f"select 1 as wrong from {TOLD} where name = '{test.name}'{read}"


def write_world(file: Path, number: int, fails: Iterable[str]) -> None:
    """Write the sources as they are at a step, and what fails in it.

    Args:
        file: DuckDB's.
        number: Of the step.
        fails: Names of nodes and tests.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    told = "".join(f"insert into {TOLD} values ('{name}', 'told');" for name in sorted(fails))
    sources = "".join(
        f"create or replace table main.{source} as "
        f"select '{source}' || n as key, {number} as seen from range(1, {number + 1}) r(n);"
        for source in SOURCES
    )
    with duckdb.connect(str(file)) as con:
        con.execute(f"{sources} create or replace table {TOLD} (name varchar, code varchar); {told}")


def write_project(product: Path, story: Story) -> None:
    """Write a story into a product's folder: models, seeds, snapshots and tests, of a package of dbt's, too."""
    for model in (product / "models").glob("*.sql"):
        model.unlink()
    # No materialization for all: the root project's would count more than what a model of a package says itself.
    _write(product / "dbt_project.yml", "name: shop\nversion: 1.0.0\nprofile: shop\n")
    _write(product / "packages.yml", "packages: [{local: packages/hub}]\n")
    _write(product / "packages/hub/dbt_project.yml", "name: hub\nversion: 1.0.0\n")
    sources = {"name": "raw", "schema": "main"}
    told = [_source(name, story) for name in SOURCES]
    _write(product / "models/sources.yml", json.dumps({"sources": [{**sources, "tables": told}]}))
    for package, folder in (("shop", product), ("hub", product / "packages/hub")):
        _write(folder / "macros/fails.sql", FAILS)
        own = [node for node in story.nodes if node.package == package]
        for node in own:
            _write_node(folder, node, story)
        for kind, place in (("models", "models"), ("seeds", "seeds"), ("snapshots", "snapshots")):
            described = _described([node for node in own if _place(node) == place], story)
            if described:
                _write(folder / place / "tests.yml", json.dumps({"version": 2, kind: described}))
        units = [_unit(test, story) for test in story.tests if test.kind == "unit"]
        units = [unit for unit in units if story.by_name[unit["model"]].package == package]
        if units:
            _write(folder / "models/units.yml", json.dumps({"unit_tests": units}))
    for test in (test for test in story.tests if test.kind == "singular"):
        config: dict[str, Any] = {"severity": "warn" if test.warns else "error"}
        if test.withholds:
            config["meta"] = {"floe": {"withholds": list(test.withholds)}}
        head = "{{ config(" + ", ".join(f"{key}={value!r}" for key, value in config.items()) + ") }}\n"
        _write(
            product / f"tests/{test.name}.sql", head + singular(test, lambda name: _refer(name, story)) + "\n"
        )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _place(node: Node) -> str:
    return {"seed": "seeds", "snapshot": "snapshots"}.get(node.kind, "models")


def _refer(name: str, story: Story) -> str:
    return f"{{{{ {_call(name, story)} }}}}"


def _call(name: str, story: Story) -> str:
    if name in SOURCES:
        return f"source('raw', '{name}')"
    node = story.by_name[name]
    version = "" if node.version is None else f", v={node.version}"
    return f"ref('{node.model}'{version})"


def _write_node(folder: Path, node: Node, story: Story) -> None:
    place = folder / _place(node) / node.folder
    if node.kind == "seed":
        _write(place / f"{node.name}.csv", f"key,seen\n{node.name},0\n")
        return
    select = query(node, story, lambda name: _refer(name, story))
    config = {"materialized": node.kind}
    if node.kind == "snapshot":
        config = {"unique_key": "key", "strategy": "check"}
    elif node.is_stateful:
        config = {"materialized": "incremental", "incremental_strategy": node.kind}
        if node.kind != "append":
            config["unique_key"] = "key"
        select = (
            f"select key, seen from (\n{select}\n) as found\n"
            "{% if is_incremental() %} where key not in (select key from {{ this }}) {% endif %}"
        )
    values = [f"{key}='{value}'" for key, value in config.items()]
    values += ["check_cols=['seen']"] if node.kind == "snapshot" else []
    values += [] if node.publish is None else [f"meta={{'floe': {{'publish': {str(node.publish).lower()}}}}}"]
    text = f"{{{{ config({', '.join(values)}) }}}}\n{select}\n"
    if node.kind == "snapshot":
        text = f"{{% snapshot {node.name} %}}\n{text}{{% endsnapshot %}}\n"
    _write(place / f"{node.name}.sql", text)


def _source(name: str, story: Story) -> dict[str, Any]:
    return {"name": name, "data_tests": _generic(name, story)}


def _generic(name: str, story: Story) -> list[dict[str, Any]]:
    """Return the tests that are attached to a node or a source, as YAML has them."""
    found = []
    for test in story.tests:
        if test.kind not in ("generic", "compared") or test.reads[0] != name:
            continue
        arguments = {"told": test.name}
        if test.kind == "compared":
            arguments["compared"] = _call(test.reads[1], story)
        config = {"severity": "warn" if test.warns else "error"}
        found.append({"fails_when_told": {"name": test.name, "arguments": arguments, "config": config}})
    return found


def _described(nodes: list[Node], story: Story) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for node in nodes:
        tests = _generic(node.name, story)
        if node.version is not None:
            model = found.setdefault(node.model, {"name": node.model, "versions": []})
            # A version that says nothing has the tests of the model; a model's own alias is its name and version.
            model["versions"].append({"v": node.version, "data_tests": tests})
            continue
        own: dict[str, Any] = {"name": node.name, "data_tests": tests}
        if node.kind == "seed" and node.publish is not None:
            own["config"] = {"meta": {"floe": {"publish": node.publish}}}
        found[node.name] = own
    return list(found.values())


def _unit(test: Test, story: Story) -> dict[str, Any]:
    node = story.by_name[test.reads[0]]
    given, expected = [], []
    for name in node.reads:
        kind = story.by_name[name].kind if name in story.by_name else ""
        given.append(
            {
                "input": _call(name, story),
                "format": "sql",
                "rows": "select 'k' as key, 1 as seen",
            }
        )
        expected.append({"key": f"{node.name}<k" + ("@1" if kind == "snapshot" else ""), "seen": 1})
    return {
        "name": test.name,
        "model": node.model,
        "overrides": {"macros": {"is_incremental": False}},
        "given": given,
        "expect": {"rows": expected},
    }


def step_in_words(number: int, step: Step) -> str:
    """Return one line about a step, for whoever reads why a story fails."""
    said = [f"{name}={value!r}" for name, value in vars(step).items() if value]
    return f"step {number}: {', '.join(said) or 'all'}"
