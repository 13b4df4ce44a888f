"""Which engine each model of a product runs on, and what the models of one may read of another: published tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from floe_dagster.compilation.agreement import models_by_transform, project_models
from floe_dagster.compilation.asset_index import asset_nodes, is_published, upstream_assets
from floe_dagster.compilation.documents import Document
from floe_dagster.compilation.engine_order import engine_order
from floe_dagster.compilation.withholding import Withholding, all_tests, is_singular
from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import asset_name
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.product import ProductSpec

FIX = "Materialize it as a table, publish it (`meta: {floe: {publish: true}}`), or give both the same compute in floe.yaml."


def node_engines(spec: ProductSpec, dbt_manifest: Mapping[str, Any], default: str) -> dict[str, str]:
    """Return the engine of every model, seed and snapshot that is built, by dbt's unique id.

    Args:
        spec: The product spec: what its transforms name.
        dbt_manifest: dbt's.
        default: `plugins.compute.type`.
    """
    models = project_models(dbt_manifest)
    transforms = {transform.name: transform for transform in spec.transforms or ()}
    named = {
        models[model]["unique_id"]: compute
        for name, meant in models_by_transform(models, transforms).items()
        for model in meant
        if (compute := transforms[name].compute)
    }
    return {key: named.get(key, default) for key in asset_nodes(dbt_manifest)}


def check_crossings(
    spec: ProductSpec,
    document: Document,
    dbt_manifest: Mapping[str, Any],
    engines: Mapping[str, str],
    path_prefix: str,
) -> list[Finding]:
    """Return what keeps the engines of one product from working on it together.

    Args:
        spec: The product spec.
        document: Where it was read, for positions.
        dbt_manifest: dbt's, each node as its engine's adapter parsed it.
        engines: See `node_engines`.
        path_prefix: Folder of the product, for display.
    """
    findings = list(_ephemeral(spec, document, dbt_manifest))
    if len(set(engines.values())) < 2:
        return findings
    nodes, everything = asset_nodes(dbt_manifest), dbt_manifest["nodes"]
    for key, node in nodes.items():
        for upstream in sorted(upstream_assets(node, nodes, everything)):
            if engines[upstream] != engines[key]:
                findings += _crossing(node, nodes[upstream], engines[key], engines[upstream], path_prefix)
    for test in everything.values():
        if test["resource_type"] == "test":
            findings += _unpublished_in_test(test, nodes, engines, path_prefix)
    return findings + list(_published_too_early(dbt_manifest, nodes, engines, path_prefix))


def _crossing(
    node: Mapping[str, Any], read: Mapping[str, Any], engine: str, other: str, path_prefix: str
) -> Iterator[Finding]:
    alias = read["alias"]
    if not is_published(read):
        yield _at(
            node,
            path_prefix,
            message=f"{_shown(node)} on {engine} reads {_shown(read)}, which {other} keeps to itself: only published tables "
            "cross from one engine to another",
            found=f"{read['config'].get('materialized') or read['resource_type']} {asset_name(read)!r}",
        )
    elif alias != alias.lower() and ENGINES[engine].writes_catalog:
        yield _at(
            node,
            path_prefix,
            code="upper-case-name",
            message=f"{_shown(node)} on {engine} reads {_shown(read)}, which is published as {alias!r}: {engine} looks for all "
            "names in lower case",
            found=alias,
            allowed=alias.lower(),
            fix=f"Name it {alias.lower()}, or give both the same compute in floe.yaml.",
        )


def _unpublished_in_test(
    test: Mapping[str, Any], nodes: Mapping[str, Any], engines: Mapping[str, str], path_prefix: str
) -> Iterator[Finding]:
    reads = [key for key in test["depends_on"]["nodes"] if key in nodes]
    crossed = sorted({engines[key] for key in reads})
    hidden = [nodes[key] for key in reads if not is_published(nodes[key])]
    if len(crossed) > 1 and hidden:
        yield _at(
            test,
            path_prefix,
            message=f"test {test['name']!r} reads what {' and '.join(crossed)} build, and {_shown(hidden[0])} is not "
            "published: only published tables cross from one engine to another",
            found=f"{hidden[0]['config'].get('materialized') or 'seed'} {asset_name(hidden[0])!r}",
        )


def _published_too_early(
    dbt_manifest: Mapping[str, Any],
    nodes: Mapping[str, Mapping[str, Any]],
    engines: Mapping[str, str],
    path_prefix: str,
) -> Iterator[Finding]:
    """Yield the error tests that could run only after a table that they withhold is published."""
    everything = dbt_manifest["nodes"]
    withholding = Withholding(dbt_manifest, nodes)
    reads = {key: upstream_assets(node, nodes, everything) for key, node in nodes.items()}
    tests = [test for _key, test in sorted(all_tests(dbt_manifest).items()) if not _only_warns(test)]
    waiting = [
        _Waiting(test, withholding.judged(test), sorted(upstream_assets(test, nodes, everything)))
        for test in tests
    ]
    stuck = _stuck(engines, reads, waiting)
    late = [
        each for each in waiting if not stuck.isdisjoint(each.judged) and not stuck.isdisjoint(each.reads)
    ]
    # Those that are late by themselves are to be named, not those that wait for the same tables.
    for each in [one for one in late if _stuck(engines, reads, [one])] or late:
        if any(_unpublished_in_test(each.test, nodes, engines, path_prefix)):
            # That one cannot be read at all.
            continue
        one, read = next(
            ((one, read) for one in each.judged for read in each.reads if engines[one] != engines[read]),
            (each.judged[0], each.reads[-1]),
        )
        choice: list[str] = []
        for key in each.judged:
            if not _stuck(engines, reads, [replace(each, judged=[*choice, key])]):
                choice.append(key)
        fix = "build all that it reads on one engine (`compute` in floe.yaml), or give it `severity: warn`."
        if is_singular(each.test) and choice:
            names = ", ".join(sorted(nodes[key]["name"] for key in choice))
            fix = f"name what it withholds: `config: {{meta: {{floe: {{withholds: [{names}]}}}}}}`; or {fix}"
        yield _at(
            each.test,
            path_prefix,
            code="test-after-publication",
            message=f"test {each.test['name']!r} withholds {_shown(nodes[one])} on {engines[one]} and reads "
            f"{_shown(nodes[read])} on {engines[read]}: it could run only after a table that it withholds is published",
            found=f"{nodes[one]['name']} on {engines[one]}, {nodes[read]['name']} on {engines[read]}",
            allowed="a test whose tables can wait for all that it reads",
            fix=fix[0].upper() + fix[1:],
        )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A test, and the assets that wait for what it reads."""

    test: Mapping[str, Any]
    judged: list[str]
    reads: list[str]


def _stuck(
    engines: Mapping[str, str], reads: Mapping[str, Collection[str]], tests: Iterable[_Waiting]
) -> frozenset[str]:
    waits = {key: set(upstream) for key, upstream in reads.items()}
    for test in tests:
        for judged in test.judged:
            waits[judged].update(test.reads)
    return engine_order(engines, waits, waits.keys()).stuck


def _only_warns(test: Mapping[str, Any]) -> bool:
    return str(test["config"].get("severity") or "error").lower() == "warn"


def _ephemeral(spec: ProductSpec, document: Document, dbt_manifest: Mapping[str, Any]) -> Iterator[Finding]:
    models = project_models(dbt_manifest)
    meant = models_by_transform(models, {transform.name for transform in spec.transforms or ()})
    for position, transform in enumerate(spec.transforms or ()):
        own = [models[name] for name in meant.get(transform.name, ())]
        if transform.compute and any(node["config"].get("materialized") == "ephemeral" for node in own):
            line, column = document.position(("transforms", position, "compute"))
            yield Finding(
                code="compute-of-ephemeral",
                severity="error",
                message=f"{transform.name!r} is ephemeral: it is part of whatever reads it, on the engine of that",
                file=document.display,
                line=line,
                column=column,
                field=f"transforms[{position}].compute",
                found=transform.compute,
                allowed="nothing, for an ephemeral model",
                fix="Remove compute, or materialize the model as a table.",
                model=transform.name,
            )


def _shown(node: Mapping[str, Any]) -> str:
    return f"{node['resource_type']} {asset_name(node)!r}"


def _at(node: Mapping[str, Any], path_prefix: str, **fields: str) -> Finding:
    said = {"code": "unpublished-crossing", "allowed": "a published table", "fix": FIX, **fields}
    return Finding(
        severity="error",
        file=f"{path_prefix}/{node['original_file_path']}",
        line=1,
        model=asset_name(node) if node["resource_type"] != "test" else None,
        **said,  # type: ignore[arg-type]
    )
