"""Which tables a test of dbt withholds where it fails, or has no result.

A generic test judges the model that it is attached to. A unit test judges the model that it names. A singular test judges all
that it reads, unless it names fewer: `config: {meta: {floe: {withholds: [orders]}}}`. A source and an ephemeral model are no
tables of the product, so a test of one judges the assets that read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from floe_dagster.compilation.suggestions import did_you_mean, some
from floe_dagster.findings import Finding
from floe_dagster.policies.model import meta_of

Node = Mapping[str, Any]

_SOURCE = re.compile(r"\bsource\(\s*['\"]([^'\"]+)['\"]\s*,\s*['\"]([^'\"]+)['\"]\s*\)")
FIELD = "config.meta.floe.withholds"
TESTS = frozenset({"test", "unit_test"})


class Withholding:
    """Knows which assets a test judges.

    Args:
        dbt_manifest: dbt's.
        nodes: Those of its nodes that are assets, by unique id: see `asset_nodes`.
    """

    def __init__(self, dbt_manifest: Mapping[str, Any], nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._readers = _readers(nodes, dbt_manifest["nodes"])

    def judged(self, test: Node) -> list[str]:
        """Return the unique ids of the assets that are withheld where a test fails; none where it concerns no asset.

        Args:
            test: A data test or unit test of dbt's manifest.
        """
        judged = self.candidates(test)
        named = _named(test)
        if not is_singular(test) or not isinstance(named, list):
            return judged
        return [key for key in judged if not _names(self._nodes[key]).isdisjoint(map(str, named))] or judged

    def unread(self, test: Node, names: Sequence[str]) -> list[str]:
        """Return those of `names` that are none of what a singular test judges.

        Args:
            test: As in `judged`.
            names: Of assets, as the test lists them.
        """
        known = {name for key in self.candidates(test) for name in _names(self._nodes[key])}
        return [name for name in names if name not in known]

    def candidates(self, test: Node) -> list[str]:
        """Return what a test withholds that names nothing: itself a choice of what a singular test may name.

        Args:
            test: As in `judged`.
        """
        subjects = _depends_on(test) if is_singular(test) else _attached(test)
        judged = [key for key in subjects if key in self._nodes]
        further = {reader for key in subjects for reader in self._readers.get(key, ())}
        return [*judged, *sorted(further - set(judged))]

    def names(self, test: Node) -> list[str]:
        """Return the names that a singular test may list."""
        return [str(self._nodes[key]["name"]) for key in self.candidates(test)]


def is_singular(test: Node) -> bool:
    """Tell whether a test is a query of its own: neither a generic test nor a unit test."""
    return test["resource_type"] == "test" and not test.get("test_metadata")


def check_withholding(
    dbt_manifest: Mapping[str, Any],
    nodes: Mapping[str, Node],
    path_prefix: str,
    read_text: Callable[[str], str | None],
) -> list[Finding]:
    """Return what is wrong with `meta.floe.withholds` of tests, and which tests never run since nothing is built that they judge.

    Args:
        dbt_manifest: dbt's.
        nodes: See `Withholding`.
        path_prefix: Folder of the product, for display.
        read_text: Returns the text of a file by its path below the product's folder, None where it cannot be read.
    """
    withholding = Withholding(dbt_manifest, nodes)
    project = dbt_manifest["metadata"].get("project_name")
    findings: list[Finding] = []
    for _key, test in sorted(all_tests(dbt_manifest).items()):
        said = list(_wrong_values(test, withholding))
        file, line = _place(test, read_text) if said else ("", None)
        findings += [
            Finding(
                code="test-withholds",
                severity="error",
                file=f"{path_prefix}/{file}",
                line=line,
                field=FIELD,
                **fields,  # type: ignore[arg-type]
            )
            for fields in said
        ]
        if not said and test.get("package_name") == project and not withholding.candidates(test):
            findings += _never_run(test, path_prefix)
    return findings


def all_tests(dbt_manifest: Mapping[str, Any]) -> dict[str, Node]:
    """Return data tests and unit tests of dbt's manifest by unique id."""
    every = {**dbt_manifest["nodes"], **dbt_manifest.get("unit_tests", {})}
    return {key: node for key, node in every.items() if node["resource_type"] in TESTS}


def _wrong_values(test: Node, withholding: Withholding) -> Iterator[dict[str, str | None]]:
    floe = meta_of(test).get("floe")
    if floe is None:
        return
    names = withholding.names(test)
    shown, example = _shown(test), f"`withholds: [{names[0] if names else 'orders'}]`"
    if not isinstance(floe, Mapping):
        yield {
            "message": f"{shown} has a meta.floe that is no mapping",
            "found": repr(floe),
            "allowed": f"a mapping such as {{withholds: [{names[0] if names else 'orders'}]}}",
            "fix": f"Write {example} below `floe:`, or take it out.",
        }
        return
    if "withholds" not in floe:
        for key in floe:
            if did_you_mean(str(key), ["withholds"]):
                yield {
                    "message": f"{shown} has a field in meta.floe that does not exist",
                    "found": str(key),
                    "allowed": "withholds",
                    "fix": "Did you mean 'withholds'?",
                }
        return
    value = floe["withholds"]
    if not is_singular(test):
        kind = "a unit test" if test["resource_type"] == "unit_test" else "a generic test"
        yield {
            "message": f"{shown} names what it withholds, and only a singular test may: {kind} withholds the model that it is "
            "written for",
            "found": repr(value),
            "allowed": "nothing, for this kind of test",
            "fix": "Take `withholds` out. A test that is only to be told of has `severity: warn`.",
        }
    elif not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        yield {
            "message": f"{shown} does not say with a list of names what it withholds",
            "found": repr(value),
            "allowed": f"a list with one or more of: {some(names)}",
            "fix": f"Write {example}.",
        }
    elif not value:
        yield {
            "message": f"{shown} withholds nothing: its list is empty",
            "found": "[]",
            "allowed": f"one or more of: {some(names)}",
            "fix": f"Write {example}. A test that is only to be told of has `severity: warn`.",
        }
    else:
        yield from _unknown(test, value, withholding)


def _unknown(test: Node, value: Sequence[str], withholding: Withholding) -> Iterator[dict[str, str | None]]:
    names = withholding.names(test)
    for name in withholding.unread(test, value):
        yield {
            "message": f"{_shown(test)} withholds {name!r}, which it does not read",
            "found": name,
            "allowed": some(names) or "nothing: it reads nothing that is built",
            "fix": did_you_mean(name, names)
            or (f"Name one of {some(names)}, or read {name!r} in the test." if names else "Take it out."),
        }


def _never_run(test: Node, path_prefix: str) -> Iterator[Finding]:
    if not _depends_on(test):
        # What reads nothing at all is no test of data; policies look at such ones.
        return
    read = some({key.split(".", 2)[-1] for key in _depends_on(test)})
    yield Finding(
        code="test-without-model",
        severity="warning",
        message=f"{_shown(test)} never runs: it reads {read}, and nothing that this product builds reads that",
        file=f"{path_prefix}/{test['original_file_path']}",
        line=1,
        fix="Read it in a model, or remove the test.",
    )


def _named(test: Node) -> Any:
    floe = meta_of(test).get("floe")
    return floe.get("withholds") if isinstance(floe, Mapping) else None


def _names(node: Node) -> set[str]:
    """Return what a node may be called: a version of a model also as `name.v2`, and by its alias."""
    version = node.get("version")
    if version is None:
        return {str(node["name"])}
    return {str(node["name"]), f"{node['name']}.v{version}", str(node.get("alias") or node["name"])}


def _depends_on(node: Node) -> list[str]:
    return list((node.get("depends_on") or {}).get("nodes") or ())


def _attached(test: Node) -> list[str]:
    """Return what a generic test or a unit test is written for.

    dbt does not name it where it is a source; the argument `model` does.
    """
    if (attached := test.get("attached_node")) is not None:
        return [attached]
    argument = str((test.get("test_metadata") or {}).get("kwargs", {}).get("model") or "")
    named = {f".{source}.{table}" for source, table in _SOURCE.findall(argument)}
    found = [key for key in _depends_on(test) if key.startswith("source.") and key.endswith((*named,))]
    return found or _depends_on(test)


def _readers(nodes: Mapping[str, Node], all_nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """Return the assets that read a source or an ephemeral model, through other ephemeral models too, by its id."""
    found: dict[str, list[str]] = {}
    for unique_id, node in nodes.items():
        seen: set[str] = set()
        pending = _depends_on(node)
        while pending:
            upstream = pending.pop()
            if upstream in seen or upstream in nodes:
                continue
            seen.add(upstream)
            found.setdefault(upstream, []).append(unique_id)
            if upstream in all_nodes:
                pending += _depends_on(all_nodes[upstream])
    return found


def _shown(test: Node) -> str:
    return f"{'unit test' if test['resource_type'] == 'unit_test' else 'test'} {test['name']!r}"


def _place(test: Node, read_text: Callable[[str], str | None]) -> tuple[str, int | None]:
    """Return file and line where a test says what it withholds: below its own entry, else in its file, else in the project's."""
    described = str(test.get("patch_path") or "").partition("://")[2]
    own = str(test["original_file_path"])
    entries = [str(test["name"]), str(test.get("attached_node") or "").rpartition(".")[2]]
    texts = {
        file: ((read_text(file) if file else None) or "").splitlines()
        for file in dict.fromkeys((described, own, "dbt_project.yml"))
    }
    for key in ("withholds", "floe"):
        # In YAML, and in the Jinja of a test's own file.
        written = re.compile(rf"\b{key}\b['\"]?\s*[:=]")
        for file, lines in texts.items():
            said = [number for number, line in enumerate(lines, 1) if written.search(line)]
            if said:
                begins = (n for entry in entries if entry for n, line in enumerate(lines, 1) if entry in line)
                begin = next(begins, 1)
                return file, next((number for number in said if number >= begin), said[0])
    return own, 1
