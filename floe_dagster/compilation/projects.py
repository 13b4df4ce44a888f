"""The staged dbt project, parsed by the adapter of each engine that the product names.

One copy of the sources serves all of them: an engine's macros are dispatched by its adapter, and its settings mean nothing
to the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from floe_dagster.compilation import dbt_manifest as dbt
from floe_dagster.compilation.asset_index import asset_nodes
from floe_dagster.compilation.crossings import check_crossings, node_engines
from floe_dagster.compilation.dbt_environment import GIT, check_ignored, dbt_environment, place_missing
from floe_dagster.compilation.dbt_flags import check_flags
from floe_dagster.compilation.documents import Document
from floe_dagster.compilation.engines import check_built
from floe_dagster.compilation.overlay import apply_overlay
from floe_dagster.compilation.packages import PACKAGE_FILES, check_packages, is_installed
from floe_dagster.compilation.parse_reads import ParseReads, parse_reads
from floe_dagster.compilation.parse_state import PARTIAL_PARSE, ParseState, parse_state
from floe_dagster.compilation.profiles import build_dbt_profiles, write_profiles
from floe_dagster.findings import Finding
from floe_dagster.home import FloeHome
from floe_dagster.policies.asset_names import asset_name
from floe_dagster.schemas.artifacts import PluginRef
from floe_dagster.schemas.product import ProductSpec
from floe_dagster.schemas.product_index import Relation


@dataclass(frozen=True, slots=True)
class EngineParts:
    """Which engine builds what, and where the others find it.

    Args:
        engines: Engine of every model, seed and snapshot, by dbt's unique id.
        relations: By engine and unique id: database, schema and name under which it knows a relation. Empty where the
            product has one engine.
    """

    engines: Mapping[str, str]
    relations: Mapping[str, Mapping[str, Relation]] = field(default_factory=dict)


@dataclass(slots=True)
class ParsedProject:
    """What the adapters found.

    Args:
        manifest: dbt's, of the default engine; a model on another engine is there as that one's adapter parsed it. None
            where dbt could not parse the project.
        profiles: Content of `profiles.yml` for the default engine.
        parts: See `EngineParts`.
        states: What each engine's adapter parsed, for its runs to begin with.
        findings: Everything that is wrong or odd.
    """

    manifest: dict[str, Any] | None = None
    profiles: dict[str, Any] = field(default_factory=dict)
    parts: EngineParts = field(default_factory=lambda: EngineParts({}))
    states: dict[str, ParseState] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class StagedProject:
    """A copy of the sources, and who works on it.

    Args:
        root: With all sources, shared ones among them.
        folder: With `dbt_project.yml`, below it; overlays are written into it.
        slug: Of the product.
        spec: The product spec.
        document: Where it was read, for positions.
        home: The writable folder.
        environ: What dbt's is taken from.
        shown: Display path of the product's folder.
    """

    root: Path
    folder: Path
    slug: str
    spec: ProductSpec
    document: Document
    home: FloeHome
    environ: Mapping[str, str]
    shown: str

    def parse(self, engines: Mapping[str, PluginRef]) -> ParsedProject:
        """Parse the project for each engine.

        Args:
            engines: Those that the product names, the default first.
        """
        default, *others = engines
        found = ParsedProject(profiles=self._profiles(engines[default]))
        found.findings = self._placed(self._vendored(found.profiles))
        if found.findings:
            return found
        found.findings = check_ignored(self.folder, self.shown, self.environ, self._environment().keys())
        found.findings += check_flags(self.folder, self.shown)
        overlaid: list[Finding] = []
        for engine in engines:
            overlaid += apply_overlay(self.folder, engine, self.spec, self.shown)
        if overlaid:
            found.findings += overlaid
            return found
        reads = parse_reads(self.root)
        manifest = self._parsed(default, found.profiles, "parse", found.findings)
        if manifest is None:
            return found
        found.states[default] = self._state(default, "parse", reads)
        builders = node_engines(self.spec, manifest, default)
        manifests = {default: manifest}
        for engine in others:
            wanted = {key for key, builder in builders.items() if builder == engine}
            said: list[Finding] = []
            # What both adapters say is said once.
            other = self._parsed(engine, self._profiles(engines[engine]), f"parse-{engine}", said)
            found.states[engine] = self._state(engine, f"parse-{engine}", reads)
            found.findings += [finding for finding in said if finding not in found.findings]
            if other is None:
                return found
            if missing := wanted - other["nodes"].keys():
                found.findings += self._missing(engine, missing, manifest)
                return found
            manifests[engine] = other
        found.manifest = _joined(manifest, manifests, builders)
        # Where an engine makes a model ephemeral, nobody builds it.
        builders = node_engines(self.spec, found.manifest, default)
        for engine in engines:
            built = [found.manifest["nodes"][key] for key, builder in builders.items() if builder == engine]
            found.findings += check_built(engine, self.slug, built, self.shown)
        found.findings += check_crossings(self.spec, self.document, found.manifest, builders, self.shown)
        found.parts = EngineParts(builders, _relations(manifests, builders) if others else {})
        return found

    def _profiles(self, plugin: PluginRef) -> dict[str, Any]:
        return build_dbt_profiles(self.slug, plugin.type, plugin.config or {})

    def _vendored(self, profiles: Mapping[str, Any]) -> list[Finding]:
        if not any((self.folder / name).exists() for name in PACKAGE_FILES):
            return []
        if wrong := check_packages(self.folder, self.shown):
            return wrong
        if is_installed(self.folder):
            return []
        return dbt.run_deps(
            self.folder,
            profile=self.slug,
            profiles_dir=self._write(profiles, "profiles"),
            logs_dir=self.home.logs_dir(self.slug),
            environ=self._environment(GIT),
            path_prefix=self.shown,
        )

    def _parsed(
        self, engine: str, profiles: Mapping[str, Any], target: str, findings: list[Finding]
    ) -> dict[str, Any] | None:
        parsed = dbt.parse_project(
            self.folder,
            profile=self.slug,
            profiles_dir=self._write(profiles, "profiles" if target == "parse" else f"profiles-{engine}"),
            target_dir=self._target(target),
            logs_dir=self.home.logs_dir(self.slug),
            environ=self._environment(),
            path_prefix=self.shown,
        )
        findings += self._placed(parsed.findings)
        return parsed.manifest

    def _state(self, engine: str, target: str, reads: ParseReads) -> ParseState:
        return parse_state(
            self.folder,
            self._target(target) / PARTIAL_PARSE,
            engine,
            reads,
            self._environment(),
            listed=self.spec.environment or (),
            places=(self.home.path, self.root),
        )

    def _target(self, name: str) -> Path:
        return self.home.path / "dbt" / self.slug / name

    def _placed(self, findings: list[Finding]) -> list[Finding]:
        return place_missing(findings, self.folder, self.shown, self.spec.environment or (), self.environ)

    def _environment(self, further: Iterable[str] = ()) -> dict[str, str]:
        return dbt_environment(self.home, self.environ, names={*(self.spec.environment or ()), *further})

    def _write(self, profiles: Mapping[str, Any], folder: str) -> Path:
        return write_profiles(profiles, self.home.path / "compile" / self.slug / folder, self.home)

    def _missing(self, engine: str, missing: Collection[str], manifest: Mapping[str, Any]) -> list[Finding]:
        return [
            Finding(
                code="model-not-on-engine",
                severity="error",
                message=f"model {asset_name(node)!r} is no part of the project where target.type is {engine!r}",
                file=f"{self.shown}/{node['original_file_path']}",
                line=1,
                model=asset_name(node),
                fix=f"Enable it there, or take `compute: {engine}` out of floe.yaml.",
            )
            for node in (manifest["nodes"][key] for key in sorted(missing))
        ]


def _joined(
    manifest: dict[str, Any], manifests: Mapping[str, Mapping[str, Any]], builders: Mapping[str, str]
) -> dict[str, Any]:
    """Return the manifest with each node as its own engine's adapter parsed it."""
    own = {key: manifests[engine]["nodes"][key] for key, engine in builders.items()}
    return {**manifest, "nodes": {**manifest["nodes"], **own}}


def _relations(
    manifests: Mapping[str, Mapping[str, Any]], builders: Mapping[str, str]
) -> dict[str, dict[str, Relation]]:
    return {
        engine: {
            key: (node["database"], node["schema"], node["alias"])
            for key, node in asset_nodes(parsed).items()
            if key in builders
        }
        for engine, parsed in manifests.items()
    }
