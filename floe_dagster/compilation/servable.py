"""What dbt's graph may hold and no code location can serve: names, circles.

dbt takes almost any name, two nodes of one name where their relations differ, and, while it parses, models that read each
other in a circle. An asset, its table and its checks are named after the node, so each name has to be one for all of
Dagster, DuckDB, Iceberg and the file system.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from floe_dagster.compilation.agreement import RESERVED_MODEL_NAMES, cycles
from floe_dagster.compilation.asset_index import asset_nodes, dagster_identifier, is_published
from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import asset_name
from floe_dagster.policies.places import DescriptionPlaces

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""What Dagster takes; beginning so that no name of a folder is `..`."""
LONGEST_NAME = 251
"""dbt writes `<name>.sql`, and a file name ends at 255 bytes."""
RESERVED_COLUMN = "__duckdb_field_id"
"""DuckDB's writer of Parquet files takes it for a field's id."""

Node = Mapping[str, Any]


def check_servable(
    dbt_manifest: Mapping[str, Any], path_prefix: str, read_text: Callable[[str], str | None]
) -> list[Finding]:
    """Return what of a dbt project cannot be served, with its place.

    Args:
        dbt_manifest: dbt's.
        path_prefix: Folder of the product, for display.
        read_text: Returns the text of a file by its path below the product's folder, None where it cannot be read.
    """
    graph = _Graph(dbt_manifest, path_prefix, DescriptionPlaces(read_text))
    return [*graph.names(), *graph.namesakes(), *graph.columns(), *graph.circles()]


class _Graph:
    def __init__(self, dbt_manifest: Mapping[str, Any], path_prefix: str, places: DescriptionPlaces) -> None:
        self._nodes = asset_nodes(dbt_manifest)
        self._readers: dict[str, Node] = {**dbt_manifest["nodes"], **dbt_manifest.get("functions", {})}
        self._project = dbt_manifest["metadata"]["project_name"]
        self._path_prefix = path_prefix
        self._places = places

    def names(self) -> Iterator[Finding]:
        """Names that are none in Dagster, are too long for a file, or belong to compile assets."""
        for node in self._nodes.values():
            name = asset_name(node)
            # A version is called by its alias, whichever file it stands in.
            field = "name" if node.get("version") is None else "alias"
            if not NAME.fullmatch(name):
                yield self._finding(
                    node,
                    code="unsupported-name",
                    field=field,
                    message=f"{node['resource_type']} {name!r} has a name that Dagster does not take",
                    found=", ".join(
                        sorted({repr(letter) for letter in name if not NAME.fullmatch(f"x{letter}")})
                    )
                    or repr(name[:1]),
                    allowed="the letters A to Z and a to z, digits and _; - and . too, but not at the beginning",
                    fix="Rename it; where its name comes from its file, rename the file."
                    if field == "name"
                    else "Give this version another alias.",
                )
            elif len(name) > LONGEST_NAME:
                yield self._finding(
                    node,
                    code="unsupported-name",
                    field=field,
                    message=f"{node['resource_type']} {name[:40]!r}… has a name that is too long for a file",
                    found=f"{len(name)} characters",
                    allowed=f"at most {LONGEST_NAME}",
                    fix="Give it a shorter name.",
                )
            elif name in RESERVED_MODEL_NAMES:
                yield self._finding(
                    node,
                    code="reserved-model-name",
                    field=field,
                    message=f"{node['resource_type']} {name!r} has the name of a compile asset",
                    found=name,
                    allowed=f"any name but {', '.join(sorted(RESERVED_MODEL_NAMES))}",
                    fix="Give it another name.",
                )

    def namesakes(self) -> Iterator[Finding]:
        """Nodes that Dagster, the catalog or the database cannot tell apart."""
        told: set[tuple[str, str]] = set()
        kinds: list[tuple[str, str, Callable[[Node], str], Iterable[Node]]] = [
            ("have the same name", "a name of its own for each asset", asset_name, self._nodes.values()),
            (
                "have names that differ in . - and _ alone, which Dagster takes for the same",
                "names that differ in more than . - and _",
                lambda n: dagster_identifier(asset_name(n)),
                self._nodes.values(),
            ),
            (
                "have names that differ in upper and lower case alone, which is one table to many readers",
                "names of tables that differ in more than upper and lower case",
                lambda n: asset_name(n).lower(),
                [node for node in self._nodes.values() if is_published(node)],
            ),
            (
                "are the same relation: upper and lower case make no difference in the database",
                "a relation of its own for each",
                _relation,
                self._nodes.values(),
            ),
        ]
        for what, allowed, key, nodes in kinds:
            groups: dict[str, list[Node]] = {}
            for node in nodes:
                groups.setdefault(key(node), []).append(node)
            for first, *others in groups.values():
                for other in others:
                    pair = (first["unique_id"], other["unique_id"])
                    if pair in told:
                        continue
                    told.add(pair)
                    # Whoever mends it owns the project, not the package.
                    own, foreign = (
                        (first, other) if other["package_name"] != self._project else (other, first)
                    )
                    yield self._finding(
                        own,
                        code="duplicate-name",
                        field="name" if key is not _relation and own.get("version") is None else "alias",
                        message=f"{_shown(own)} and {_shown(foreign)} ({self._file(foreign)}) {what}",
                        found=asset_name(own) if key is not _relation else _relation(own),
                        allowed=allowed,
                        fix="Rename one of the two"
                        + (", or disable it." if foreign["package_name"] != self._project else "."),
                    )

    def columns(self) -> Iterator[Finding]:
        """Columns of tables whose name the writer of their files takes for something else."""
        for node in self._nodes.values():
            for column in node["columns"].values():
                if column["name"].lower() == RESERVED_COLUMN and is_published(node):
                    yield self._finding(
                        node,
                        described=True,
                        column=column["name"],
                        code="unsupported-name",
                        field=f"columns.{column['name']}",
                        message=f"column {column['name']!r} of {_shown(node)} has a name that DuckDB keeps for itself",
                        found=column["name"],
                        allowed="any other name",
                        fix="Give the column another name.",
                    )

    def circles(self) -> Iterator[Finding]:
        """Nodes that read each other in a circle, through ephemeral models and functions too."""
        graph = {
            key: [up for up in (node.get("depends_on") or {}).get("nodes", ()) if up in self._readers]
            for key, node in self._readers.items()
        }
        for cycle in cycles(graph):
            first = cycle.index(min(cycle, key=lambda each: (asset_name(self._readers[each]), each)))
            nodes = [self._readers[key] for key in [*cycle[first:], *cycle[:first]]]
            path = " -> ".join(asset_name(node) for node in [*nodes, nodes[0]])
            yield self._finding(
                nodes[0],
                code="circular-ref",
                message=f"{nodes[0]['resource_type']}s read each other in a circle: {path}"
                if len(nodes) > 1
                else f"{_shown(nodes[0])} reads itself with ref()",
                found=path,
                allowed="a graph in which nothing reads itself, directly or through others",
                fix=f"Take one of these ref() out: {', '.join(map(self._file, nodes))}."
                if len(nodes) > 1
                else "Use {{ this }} to read what an earlier run left, or take the ref() out.",
            )

    def _finding(
        self, node: Node, *, described: bool = False, column: str | None = None, **fields: Any
    ) -> Finding:
        described = described or node["original_file_path"].endswith((".yml", ".yaml"))
        place = self._places.of(node, column) if described and self._is_own(node) else None
        file, line = (self._path(place[0]), place[1]) if place else (self._file(node), 1)
        return Finding(severity="error", file=file, line=line, model=asset_name(node), **fields)

    def _is_own(self, node: Node) -> bool:
        return bool(node["package_name"] == self._project)

    def _file(self, node: Node) -> str:
        folder = "" if self._is_own(node) else f"dbt_packages/{node['package_name']}/"
        return self._path(f"{folder}{node['original_file_path']}")

    def _path(self, path: str) -> str:
        return f"{self._path_prefix}/{path}" if self._path_prefix else path


def _relation(node: Node) -> str:
    parts: Iterable[str | None] = (node["database"], node["schema"], node["alias"])
    return ".".join(part or "" for part in parts).lower()


def _shown(node: Node) -> str:
    return f"{node['resource_type']} {asset_name(node)!r}"
