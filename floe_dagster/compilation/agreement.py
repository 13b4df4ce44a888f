"""Do `transforms` in the product spec and the dbt project say the same?

A transform without a model, an unknown or circular `dependsOn`, and one that the dbt graph contradicts
are errors: the document cannot be followed. A model that no transform names is a matter of governance.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from floe_dagster.compilation.documents import Document
from floe_dagster.compilation.suggestions import did_you_mean, some
from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import asset_name, model_name, named_by
from floe_dagster.policies.model import PolicyContext, Project
from floe_dagster.policies.references import relations_of, resolve
from floe_dagster.policies.sql import relations_read
from floe_dagster.schemas.product import ProductSpec, Transform

RESERVED_MODEL_NAMES = frozenset(
    {"platform_manifest", "resolved_governance", "compiled_artifacts", "dbt_manifest"}
)


_PYTHON_SQL = re.compile(
    r"""(?P<quote>\"{3}|'{3}|"|')(?P<sql>\s*(?:select|with|from)\b.*?)(?P=quote)""", re.I | re.S
)


def project_models(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the models of the dbt project itself (not of its packages), by the names of their assets."""
    project = manifest["metadata"]["project_name"]
    return {
        asset_name(node): node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["package_name"] == project
    }


def models_by_transform(models: Mapping[str, dict[str, Any]], names: Collection[str]) -> dict[str, list[str]]:
    """Return which models each name of `transforms` means, by the names of their assets.

    A name means the model or version that is called so, else all versions of the model that no other name means.

    Args:
        models: See `project_models`.
        names: Of the transforms.
    """
    found: dict[str, list[str]] = {}
    for name, node in models.items():
        named = named_by(node, names)
        if named is not None:
            found.setdefault(named, []).append(name)
    return found


def model_dependencies(manifest: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return, by model name, the names of the models that it reads, directly or through others."""
    models = project_models(manifest)
    by_id = {node["unique_id"]: name for name, node in models.items()}
    direct = {
        name: {by_id[up] for up in node["depends_on"]["nodes"] if up in by_id}
        for name, node in models.items()
    }
    reached: dict[str, set[str]] = {}

    for start in direct:
        pending, seen = list(direct[start]), set()
        while pending:
            name = pending.pop()
            if name not in seen:
                seen.add(name)
                pending.extend(reached.get(name, direct[name]))
        reached[start] = seen
    return reached


def check_transforms(spec: ProductSpec, document: Document) -> list[Finding]:
    """Return what is wrong with `transforms` by itself: duplicates, unknown names, cycles.

    Args:
        spec: The product spec.
        document: Where it was read, for positions.
    """
    if spec.transforms is None:
        return []
    findings: list[Finding] = []
    names = [transform.name for transform in spec.transforms]
    for position, transform in enumerate(spec.transforms):
        if transform.name in names[:position]:
            findings.append(
                _at(
                    document,
                    ("transforms", position, "name"),
                    code="duplicate-transform",
                    message=f"transform {transform.name!r} is listed twice",
                    fix="Remove one of the two entries.",
                    model=transform.name,
                )
            )
        if transform.name in RESERVED_MODEL_NAMES:
            findings.append(
                _at(
                    document,
                    ("transforms", position, "name"),
                    code="reserved-model-name",
                    message=f"{transform.name!r} is the name of a compile asset",
                    fix="Give the model another name.",
                    model=transform.name,
                )
            )
    for cycle in cycles({t.name: list(t.depends_on or ()) for t in spec.transforms}):
        position = names.index(cycle[0])
        findings.append(
            _at(
                document,
                ("transforms", position, _depends_key(document, position)),
                code="circular-depends-on",
                message="dependsOn goes in a circle: " + " -> ".join([*cycle, cycle[0]]),
                fix="Remove one of these dependsOn entries.",
                model=cycle[0],
            )
        )
    return findings


def check_preset(spec: ProductSpec, document: Document, presets: Mapping[str, Any]) -> list[Finding]:
    """Return a finding where `resources` names no preset of the platform.

    Args:
        spec: The product spec.
        document: Where it was read, for positions.
        presets: `resource_presets` of the merged manifest, by name.
    """
    if spec.resources is None or spec.resources in presets:
        return []
    return [
        _at(
            document,
            ("resources",),
            code="unknown-preset",
            message=f"resources names {spec.resources!r}, which is no preset of the platform",
            found=spec.resources,
            allowed=some(presets) or "nothing: the platform has no resource_presets",
            fix=did_you_mean(spec.resources, presets)
            or "Name a preset of the platform, or remove resources.",
        )
    ]


def check_compute(spec: ProductSpec, document: Document, engines: Sequence[str]) -> list[Finding]:
    """Return a finding for each transform that names an engine which the platform does not list.

    Args:
        spec: The product spec.
        document: Where it was read, for positions.
        engines: Those that the platform lists, the default first.
    """
    return [
        _at(
            document,
            ("transforms", position, "compute"),
            code="unsupported-compute",
            message=f"transform {transform.name!r} asks for {transform.compute!r}, which the platform does not list",
            found=transform.compute,
            allowed=", ".join(engines),
            fix=did_you_mean(transform.compute, engines)
            or f"Remove compute: the platform runs products on {engines[0]}. Or have the engine added to "
            "plugins.additional_compute of the manifest.",
            model=transform.name,
        )
        for position, transform in enumerate(spec.transforms or ())
        if transform.compute is not None and transform.compute not in engines
    ]


def check_tests(manifest: Mapping[str, Any], prefix: str) -> list[Finding]:
    """Return a warning for each singular test that reads no model and no source: no table waits for it, and it does not run.

    Args:
        manifest: dbt's.
        prefix: Display path of the product's folder.
    """
    return [
        Finding(
            code="test-without-model",
            severity="warning",
            message=f"test {node['name']!r} reads no model and no source, so it judges no table and does not run",
            file=_join(prefix, node["original_file_path"]),
            line=1,
            fix="Name what it reads with ref() or source(), not by the name of the relation.",
        )
        for node in manifest["nodes"].values()
        if node["resource_type"] == "test" and not node["depends_on"]["nodes"]
    ]


def check_relations(manifest: Mapping[str, Any], context: PolicyContext) -> list[Finding]:
    """Return an error for each model, snapshot or test whose SQL names a relation that the product itself builds.

    dbt does not know that it reads it: it is built in any order, its tier is not looked at, and it is published though a test
    of what it reads has failed.

    Args:
        manifest: dbt's.
        context: For places: where files of the product and of its packages lie.
    """
    project = Project.of(manifest, context)
    own = relations_of(project.by_id)
    findings = []
    for node in (*project.models, *project.tests):
        if node.get("test_metadata"):
            continue
        known = {node["unique_id"], *node["depends_on"]["nodes"]}
        for read, parts, line in _own_relations(node, own, project.dialect):
            if read in known and read == node["unique_id"]:
                continue
            name = project.by_id[read]["name"]
            findings.append(
                replace(
                    project.finding(
                        node,
                        f"{node['resource_type']} {node['name']!r} reads {name!r} by the name of its relation, "
                        f"{'.'.join(parts)}",
                        f"Write {{{{ ref('{name}') }}}} in its place.",
                        "hard-coded-relation",
                        sql_line=line,
                    ),
                    severity="error",
                    kind="input",
                )
            )
    return findings


def _own_relations(
    node: Mapping[str, Any], own: Mapping[tuple[str, str], str], dialect: str | None
) -> Iterator[tuple[str, tuple[str, ...], int]]:
    raw = str(node.get("raw_code") or "")
    if node.get("language") == "python":
        # Its SQL stands in texts.
        for found in _PYTHON_SQL.finditer(raw):
            for parts, line in relations_read(found["sql"], dialect):
                if (read := resolve(parts, own)) is not None:
                    yield read, parts, raw.count("\n", 0, found.start()) + line
        return
    # A name that is nowhere in the text is not read by it.
    if not any(name in raw.lower() for _schema, name in own):
        return
    for parts, line in relations_read(raw, dialect):
        if (read := resolve(parts, own)) is not None:
            yield read, parts, line


def check_agreement(spec: ProductSpec, document: Document, manifest: Mapping[str, Any]) -> list[Finding]:
    """Return where `transforms` and dbt's graph differ, with both places named.

    Args:
        spec: The product spec.
        document: Where it was read, for positions.
        manifest: dbt's manifest.
    """
    models = project_models(manifest)
    prefix = document.display.rpartition("/")[0]
    findings: list[Finding] = []
    if spec.transforms is None:
        return findings
    reads = model_dependencies(manifest)
    # What may stand in a document: a model, one version of a model, or the name of all its versions.
    meant: dict[str, set[str]] = {}
    for name, node in models.items():
        meant.setdefault(model_name(node), set()).add(name)
    meant |= {name: {name} for name in models}
    known = sorted(meant)
    named = models_by_transform(models, {transform.name for transform in spec.transforms})
    for position, transform in enumerate(spec.transforms):
        if transform.name not in meant:
            near = did_you_mean(transform.name, known)
            findings.append(
                _at(
                    document,
                    ("transforms", position, "name"),
                    code="transform-without-model",
                    message=f"transform {transform.name!r} names no model of the dbt project",
                    found=transform.name,
                    allowed=some(known),
                    fix=near or f"Add {prefix}/models/**/{transform.name}.sql, or remove the transform.",
                    model=transform.name,
                )
            )
            continue
        own = [models[name] for name in named.get(transform.name, meant[transform.name])]
        read = set().union(*(reads[asset_name(node)] for node in own))
        findings += _check_depends_on(position, transform, document, own[0], meant, read, prefix)
    for name in sorted(models.keys() - {name for names in named.values() for name in names}):
        node = models[name]
        findings.append(
            Finding(
                code="model-without-transform",
                severity="error" if not spec.transforms else "warning",
                kind="input" if not spec.transforms else "policy",
                policy=None if not spec.transforms else "agreement",
                message=f"model {name!r} is named by no transform in {document.display}",
                file=_join(prefix, node["original_file_path"]),
                line=1,
                fix=f"Add `- name: {name}` to transforms in {document.display}, or remove the model.",
                model=name,
            )
        )
    return findings


def _check_depends_on(
    position: int,
    transform: Transform,
    document: Document,
    model: Mapping[str, Any],
    meant: Mapping[str, set[str]],
    read: set[str],
    prefix: str,
) -> list[Finding]:
    findings = []
    key = _depends_key(document, position)
    for entry, upstream in enumerate(transform.depends_on or ()):
        path = ("transforms", position, key, entry)
        if upstream not in meant:
            findings.append(
                _at(
                    document,
                    path,
                    code="unknown-depends-on",
                    message=f"{transform.name!r} depends on {upstream!r}, which is no model of the dbt project",
                    found=upstream,
                    allowed=some(meant),
                    fix=did_you_mean(upstream, meant) or "Remove the entry.",
                    model=transform.name,
                )
            )
        elif not meant[upstream] & read:
            sql = _join(prefix, model["original_file_path"])
            findings.append(
                _at(
                    document,
                    path,
                    code="contradicted-depends-on",
                    message=f"{transform.name!r} depends on {upstream!r} here, but {sql} does not read it",
                    found=upstream,
                    allowed=some(read) or "nothing: the model reads no other model",
                    fix=f"Use {{{{ ref('{upstream}') }}}} in {sql}, or remove the entry.",
                    model=transform.name,
                )
            )
    return findings


def _depends_key(document: Document, position: int) -> str:
    try:
        entry = document.data["transforms"][position]
    except (KeyError, IndexError, TypeError):
        return "dependsOn"
    return "depends_on" if isinstance(entry, dict) and "depends_on" in entry else "dependsOn"


def cycles(graph: Mapping[str, list[str]]) -> list[list[str]]:
    """Return each cycle once, as the names along it.

    Args:
        graph: What each name reads.
    """
    done: set[str] = set()
    cycles: list[list[str]] = []
    for root in graph:
        if root in done:
            continue
        path: list[str] = [root]
        on_path = {root}
        iterators = [iter(graph[root])]
        while iterators:
            step = next(iterators[-1], None)
            if step is None:
                iterators.pop()
                finished = path.pop()
                on_path.discard(finished)
                done.add(finished)
            elif step in on_path:
                cycles.append(path[path.index(step) :])
            elif step in graph and step not in done:
                path.append(step)
                on_path.add(step)
                iterators.append(iter(graph[step]))
    return cycles


def _join(prefix: str, path: str) -> str:
    return f"{prefix}/{path}" if prefix else path


def _at(document: Document, path: tuple[str | int, ...], **fields: Any) -> Finding:
    line, column = document.position(path)
    dotted = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return Finding(severity="error", file=document.display, line=line, column=column, field=dotted, **fields)
