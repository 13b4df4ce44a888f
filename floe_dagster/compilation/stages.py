"""What happens inside the stages of a compilation (see `pipeline`)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_dagster.atomic import move_atomically
from floe_dagster.compilation.bundle import (
    ARTIFACT,
    ASSET_INDEX,
    DBT_MANIFEST,
    REPORT,
    Bundle,
    SourceLayout,
    write_bundle,
)
from floe_dagster.compilation.documents import Document, DocumentPath, read_document
from floe_dagster.compilation.governance import GovernanceResolution, resolve_governance
from floe_dagster.compilation.inheritance import (
    ManifestChain,
    load_manifest_chain,
    resolve_manifest_path,
    who_names,
)
from floe_dagster.compilation.manifest_choice import ManifestChoice, chain_digest
from floe_dagster.compilation.orchestrator import Orchestrator, cannot_be_served, check_schedules
from floe_dagster.compilation.required_dbt import check_required_dbt
from floe_dagster.compilation.result import CompileResult, StageTiming
from floe_dagster.compilation.sources import PROJECT_FILE, SourceState, source_state
from floe_dagster.compilation.validation import Parsed, parse_product
from floe_dagster.digests import digits_of
from floe_dagster.findings import Finding, InputError, sort_findings
from floe_dagster.home import FloeHome, display_path, find_project_root, without_marker
from floe_dagster.named_manifests import SPEC_FILE, named_manifest
from floe_dagster.schemas.kinds import extension_findings
from floe_dagster.schemas.plugins import PLUGIN_CATEGORIES
from floe_dagster.schemas.product import ProductSpec

if TYPE_CHECKING:
    from floe_dagster.compilation.projects import ParsedProject
    from floe_dagster.policies import PolicyContext, PolicyReport
    from floe_dagster.schemas.artifacts import CompiledArtifacts
    from floe_dagster.schemas.product_index import ProductIndex

SECRET_CODE = "literal-secret"
BLOCKING_AT_STRICT = (SECRET_CODE,)


class Stages:
    """One compilation; create, `run`, then `generate`.

    Args:
        product_dir: The product's folder.
        manifest: Platform manifest to use in place of the one that `floe.yaml` names.
        home: The writable folder.
        environ: For `FLOE_MANIFEST` and for dbt.
        on_stage: Called with the name of each stage as it begins.
        orchestrator: Is asked whether it can serve what was compiled; nobody is when None.
        manifest_sha256: Pins manifests besides `FLOE_MANIFEST_SHA256`.
    """

    def __init__(
        self,
        product_dir: Path,
        manifest: Path | None,
        home: FloeHome,
        environ: Mapping[str, str],
        on_stage: Any,
        orchestrator: Orchestrator | None = None,
        manifest_sha256: str | None = None,
    ) -> None:
        self.product_dir = product_dir
        self.choice = ManifestChoice.of(product_dir, manifest, environ, manifest_sha256)
        self.root = find_project_root(product_dir)
        self.manifest = manifest
        self.home = home
        self.environ = environ
        self.on_stage = on_stage
        self.orchestrator = orchestrator
        self.timings: list[StageTiming] = []
        self.findings: list[Finding] = []
        self.slug = product_dir.name
        self.name = product_dir.name
        self.repository: str | None = None
        self.table_properties: tuple[tuple[str, ...], ...] = ()
        self.last_day: date | None = None
        """The day after which the same sources may have other findings."""
        self.shown = display_path(product_dir, self.root)
        self._result: CompileResult | None = None
        self._documents: dict[str, bytes] = {}
        self._states: dict[str, bytes] = {}
        self._layout: SourceLayout | None = None
        self._project_document: Document | None = None
        self._parsed: ParsedProject | None = None
        self._agreement: list[Finding] = []
        self._policy_report: PolicyReport | None = None
        self._artifact: CompiledArtifacts | None = None
        self._asset_index: ProductIndex | None = None
        self._staged: Path | None = None
        self._places_known: PolicyContext | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage and report its beginning; stages may be entered more than once."""
        self.on_stage(name)
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            for position, timing in enumerate(self.timings):
                if timing.name == name:
                    self.timings[position] = StageTiming(name, timing.seconds + seconds)
                    break
            else:
                self.timings.append(StageTiming(name, seconds))

    def run(self, staging: Path, *, documents_only: bool = False) -> CompileResult:
        """Run every stage but GENERATE.

        Args:
            staging: An empty folder for the snapshot of the sources.
            documents_only: Stop before dbt.
        """
        with self.stage("LOAD"):
            state = source_state(
                self.product_dir, manifest=self.manifest, home=self.home, environ=self.environ
            )
            self.findings += _outside_root(state, self.root)
            self.findings += extension_findings()
            spec = self._read_spec()
            chain = self._read_chain(spec) if spec else None
        with self.stage("VALIDATE"):
            if spec and spec.value:
                self._validate_spec(spec, chain)
            if spec and self.orchestrator is not None:
                self.findings += check_schedules(spec, chain, self.orchestrator)
        resolution: GovernanceResolution | None = None
        with self.stage("RESOLVE"):
            if chain is not None and spec is not None:
                from floe_dagster.compilation.dbt_environment import check_environment
                from floe_dagster.compilation.table_properties import check_spec_properties

                resolution = resolve_governance(chain, spec)
                self.findings += resolution.findings
                self.findings += self._check_exemptions(resolution)
                self.findings += check_environment(spec, chain, resolution.environment)
                self.table_properties = resolution.table_properties
                self.findings += check_spec_properties(spec, self.table_properties)
        if resolution is not None:
            self._raise_secrets(resolution.effective_level)
        dbt_manifest: dict[str, Any] | None = None
        ready = spec is not None and spec.value is not None and chain is not None and chain.merged is not None
        if ready and not documents_only and not self._input_errors():
            assert spec is not None and spec.value is not None and chain is not None
            with self.stage("VALIDATE"):
                dbt_manifest = self._parse_dbt(state, staging, spec, spec.value, chain)
            if dbt_manifest is not None and resolution is not None:
                self._enforce_and_build(state, spec.value, chain, resolution, dbt_manifest)
        self.findings = sort_findings(self.findings)
        result = CompileResult(
            self.product_dir,
            self.slug,
            self.name,
            state.digest,
            stages=self.timings,
            findings=self.findings,
            built=self._artifact,
            built_index=self._asset_index,
        )
        result.report = self._report(state, chain, resolution)
        self._result = result
        return result

    def _read_spec(self) -> Parsed[ProductSpec] | None:
        try:
            parsed = parse_product(read_document(self.product_dir / SPEC_FILE, root=self.root))
        except InputError as error:
            self.findings += error.findings
            return None
        self.findings += parsed.findings
        if parsed.value is not None:
            self.slug, self.name = parsed.value.slug, parsed.value.metadata.name
            self.repository = parsed.value.repository
        return parsed

    def _read_chain(self, spec: Parsed[ProductSpec]) -> ManifestChain | None:
        choice = self.choice
        named_by = who_names(spec, option=choice.argument, variable=choice.environment)
        try:
            path = resolve_manifest_path(spec, root=self.root, override=choice.override)
            chain = load_manifest_chain(path, root=self.root, named_by=named_by)
        except InputError as error:
            self.findings += [*error.findings, *self.choice.findings(spec.document, (), self.root)]
            return None
        self.findings += chain.findings
        layers = [layer.document for layer in chain.layers]
        self.findings += self.choice.findings(spec.document, layers, self.root)
        return chain

    def _validate_spec(self, spec: Parsed[ProductSpec], chain: ManifestChain | None) -> None:
        from floe_dagster.compilation.agreement import check_compute, check_preset, check_transforms
        from floe_dagster.compilation.builder import listed_engines, named_engines, plugin_types
        from floe_dagster.compilation.engines import check_engine

        assert spec.value is not None
        self.findings += check_transforms(spec.value, spec.document)
        if chain is not None and chain.merged is not None:
            self.findings += check_preset(spec.value, spec.document, chain.merged.resource_presets or {})
            types, nearest = plugin_types(chain.merged), chain.layers[0].document.display
            named = named_engines(spec.value)
            self.findings += check_engine(chain.merged, types, _plugin_places(chain), nearest, named)
            self.findings += check_compute(spec.value, spec.document, listed_engines(chain.merged))
        self.findings += self._check_dbt_project()

    def _check_dbt_project(self) -> list[Finding]:
        path = self.product_dir / PROJECT_FILE
        if not path.exists():
            return [
                Finding(
                    code="no-dbt-project",
                    severity="error",
                    message=f"{self.shown} has no {PROJECT_FILE}",
                    file=f"{self.shown}/{PROJECT_FILE}",
                    fix=f"Write {PROJECT_FILE} with `name: {self.slug}`; see dbt's documentation.",
                )
            ]
        try:
            document = read_document(path, root=self.root)
        except InputError as error:
            return error.findings
        self._project_document = document
        wrong = check_required_dbt(document)
        found = document.data.get("name") if isinstance(document.data, dict) else None
        if found == self.slug:
            return wrong
        line, column = document.position(("name",)) if found is not None else (1, 1)
        return [
            *wrong,
            Finding(
                code="dbt-project-name",
                severity="error",
                message=f"the dbt project is not named like the product {self.name!r}",
                file=document.display,
                line=line,
                column=column,
                field="name",
                found=repr(found),
                allowed=self.slug,
                fix=f"Write `name: {self.slug}` in {document.display}, and rename its keys under models: and seeds:.",
            ),
        ]

    def _raise_secrets(self, level: str) -> None:
        if level == "strict":
            self.findings = [
                replace(finding, severity="error", kind="policy", policy="secrets")
                if finding.code in BLOCKING_AT_STRICT
                else finding
                for finding in self.findings
            ]

    def _input_errors(self) -> bool:
        return any(finding.severity == "error" and finding.kind == "input" for finding in self.findings)

    def _parse_dbt(
        self,
        state: SourceState,
        staging: Path,
        spec: Parsed[ProductSpec],
        product: ProductSpec,
        chain: ManifestChain,
    ) -> dict[str, Any] | None:
        from floe_dagster.compilation.agreement import check_agreement, check_relations, check_tests
        from floe_dagster.compilation.asset_index import asset_nodes
        from floe_dagster.compilation.builder import named_engines, resolved_plugins
        from floe_dagster.compilation.deprecations import check_deprecations, next_deprecation
        from floe_dagster.compilation.projects import StagedProject
        from floe_dagster.compilation.servable import check_servable
        from floe_dagster.compilation.table_properties import check_model_properties
        from floe_dagster.compilation.undefined_tests import check_generic_tests
        from floe_dagster.compilation.withholding import check_withholding

        layout = SourceLayout(self.slug, [file.name for file in state.files])
        self._layout = layout
        problem = self._snapshot(state, staging, layout)
        if problem:
            self.findings.append(problem)
            return None
        assert chain.merged is not None
        project = StagedProject(
            staging,
            staging / layout.project,
            self.slug,
            product,
            spec.document,
            self.home,
            self.environ,
            self.shown,
        )
        parsed = project.parse(resolved_plugins(chain.merged, named_engines(product)).engines())
        self.findings += parsed.findings
        if parsed.manifest is None:
            return None
        self.findings += _leaving_links(staging, self.shown)
        self._parsed = parsed
        for engine, carried in parsed.states.items():
            self._states |= carried.documents(engine)
        self._agreement = check_agreement(product, spec.document, parsed.manifest)
        self.findings += [finding for finding in self._agreement if finding.kind == "input"]
        self.findings += check_tests(parsed.manifest, self.shown)
        self._staged = staging / layout.project
        self.findings += check_relations(parsed.manifest, self._places())
        self.findings += self._check_published(state, spec, product, parsed.manifest)
        self.findings += check_generic_tests(parsed.manifest, self.shown, self._read_source)
        self.findings += check_servable(parsed.manifest, self.shown, self._read_source)
        self.findings += check_model_properties(
            parsed.manifest, self.shown, self._read_source, self.table_properties
        )
        self.findings += check_deprecations(parsed.manifest, self.shown, self._read_source)
        if (deprecation := next_deprecation(parsed.manifest)) is not None:
            self._note_last_day(deprecation - timedelta(days=1))
        self.findings += check_withholding(
            parsed.manifest, asset_nodes(parsed.manifest), self.shown, self._read_source
        )
        return parsed.manifest

    def _check_exemptions(self, resolution: GovernanceResolution) -> list[Finding]:
        from floe_dagster.compilation.exemptions import check_exemptions, last_day
        from floe_dagster.policies import POLICIES

        self._note_last_day(last_day(resolution.exemptions, self.name))
        return check_exemptions(resolution.exemptions, self.name, list(POLICIES))

    def _note_last_day(self, day: date | None) -> None:
        self.last_day = min((each for each in (self.last_day, day) if each is not None), default=None)

    def _places(self) -> PolicyContext:
        """Return what finds the files of the product and of its packages, without any rule."""
        from floe_dagster.compilation.package_files import package_folders
        from floe_dagster.policies import PolicyContext

        if self._places_known is None:
            assert self._staged is not None
            self._places_known = PolicyContext(
                level="off",
                path_prefix=self.shown,
                read_text=self._read_source,
                package_folders=package_folders(self.product_dir, self._staged),
            )
        return self._places_known

    def _check_published(
        self, state: SourceState, spec: Parsed[ProductSpec], product: ProductSpec, manifest: dict[str, Any]
    ) -> list[Finding]:
        from floe_dagster.compilation.unpublished import DbtProject, check_published

        document = self._project_document
        project = DbtProject(self.slug, self.shown, document.data if document else {})
        files = [file.name for file in state.files]
        return check_published(product, spec.document, manifest, files, project, document)

    def _snapshot(self, state: SourceState, staging: Path, layout: SourceLayout) -> Finding | None:
        for file in state.files:
            target = staging / layout.place(file.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                content = file.path.read_bytes()
            except OSError as error:
                return Finding(
                    code="unreadable-file",
                    severity="error",
                    message=f"{display_path(file.path, self.root)} cannot be read: {error.strerror}",
                    file=display_path(file.path, self.root),
                    fix="Give read permission, or remove the file.",
                )
            if digits_of(content) != file.sha256:
                return Finding(
                    code="sources-changed",
                    severity="error",
                    message=f"{display_path(file.path, self.root)} changed while the product was compiled",
                    file=display_path(file.path, self.root),
                    fix="Compile again.",
                )
            target.write_bytes(content)
        return None

    def _enforce_and_build(
        self,
        state: SourceState,
        product: ProductSpec,
        chain: ManifestChain,
        resolution: GovernanceResolution,
        dbt_manifest: dict[str, Any],
    ) -> None:
        import orjson

        from floe_dagster.compilation.asset_index import build_asset_index
        from floe_dagster.compilation.builder import (
            build_artifacts,
            enforcement_result,
            further_engines,
            named_engines,
            plugin_types,
        )
        from floe_dagster.compilation.exemptions import check_exempt_names, in_force
        from floe_dagster.compilation.package_files import governed_files
        from floe_dagster.policies import PolicyContext, column_rules, evaluate_policies
        from floe_dagster.policies.places import DescriptionPlaces
        from floe_dagster.schemas.product_index_json import index_to_json

        assert chain.merged is not None and self._parsed is not None
        approved = chain.merged.approved_plugins
        assert self._staged is not None
        with self.stage("ENFORCE"):
            files = governed_files(state, self._staged, self.root, self.shown)
            context = PolicyContext(
                level=resolution.effective_level,
                settings=resolution.settings,
                tiers={t.name: t.tier for t in product.transforms or () if t.tier},
                owner=product.metadata.owner,
                approved_plugins=approved.by_category() if approved else None,
                plugins_used=plugin_types(chain.merged),
                further_engines=further_engines(chain.merged, named_engines(product)),
                plugin_places=_plugin_places(chain),
                document_findings=[
                    *(finding for finding in self.findings if finding.code == SECRET_CODE),
                    *(finding for finding in self._agreement if finding.kind == "policy"),
                ],
                path_prefix=self.shown,
                read_text=self._read_source,
                files=files,
                package_folders=self._places().package_folders,
                exemptions=in_force(resolution.exemptions, self.name),
            )
            self.findings += check_exempt_names(
                resolution.exemptions, self.name, dbt_manifest, (file.name for file in files)
            )
            policy_report = evaluate_policies(dbt_manifest, context)
            known = {finding for finding in self.findings if finding.code == SECRET_CODE}
            self.findings = [finding for finding in self.findings if finding not in known]
            self.findings += policy_report.findings
            self._policy_report = policy_report
        with self.stage("COMPILE"):
            artifact = build_artifacts(
                product,
                chain,
                dbt_manifest,
                source_hash=state.digest,
                dbt_profiles=self._parsed.profiles,
                governance=resolution.governance,
                enforcement=enforcement_result(policy_report),
                compiled_at=datetime.now(UTC),
            )
            index = build_asset_index(
                artifact,
                dbt_manifest,
                spec=product,
                manifest=chain.merged,
                places=DescriptionPlaces(self._read_source),
                lifecycle=resolution.lifecycle(),
                columns=column_rules(context),
                engines=self._parsed.parts.engines,
                relations=self._parsed.parts.relations,
            )
            self._artifact, self._asset_index = artifact, index
            self._documents = {
                ARTIFACT: artifact.model_dump_json(indent=2, by_alias=True).encode() + b"\n",
                DBT_MANIFEST: orjson.dumps(dbt_manifest, option=orjson.OPT_SORT_KEYS),
                ASSET_INDEX: index_to_json(index),
                **self._states,
            }

    def _read_source(self, name: str) -> str | None:
        path = self.product_dir / name.removeprefix(f"{self.shown}/")
        for each in (path, self._staged / name if self._staged is not None else path):
            # What packages bring lies in the copy alone.
            with suppress(OSError):
                return each.read_text("utf-8", "replace")
        return None

    def _report(
        self, state: SourceState, chain: ManifestChain | None, resolution: GovernanceResolution | None
    ) -> dict[str, Any]:
        report: dict[str, Any] = {
            "digest": state.digest,
            "slug": self.slug,
            "product_name": self.name,
            "repository": self.repository,
            "stages": [asdict(timing) for timing in self.timings],
            "findings": [finding.to_dict() for finding in self.findings],
            "source_files": len(state.files),
        }
        if chain is not None:
            report["manifest_chain"] = [_layer(layer) for layer in chain.layers]
            report["manifest"] = {
                "file": chain.layers[0].document.display,
                "decided_by": self.choice.decided_by,
                "digest": chain_digest(layer.document.sha256 for layer in chain.layers),
                "pinned_by": [pin.name for pin in self.choice.pins],
                "replaces": named_manifest(self.product_dir) if self.choice.override is not None else None,
            }
        if resolution is not None:
            report["governance"] = {
                "effective_level": resolution.effective_level,
                "decisions": [asdict(decision) for decision in resolution.decisions],
            }
        if self._policy_report is not None:
            report["policies"] = self._policy_report.to_dict()
        return report

    def generate(self, staging: Path, *, keep: bool = True) -> None:
        """Write the bundle, have it checked by who will serve it, and lay it into its place unless something blocks.

        Args:
            staging: The folder that `run` had; the bundle is written beside it before it has its place.
            keep: Only look when False.

        Raises:
            OSError: `home` cannot be written; the last good bundle stays.
        """
        result = self._result
        if result is None or not self._documents or self._input_errors():
            return
        if result.blocked and self.orchestrator is None:
            return
        draft = staging.with_name(f"{staging.name}.zip")
        with self.stage("GENERATE"):
            try:
                self._write_bundle(staging, draft)
                if self.orchestrator is not None:
                    self._check_loading(Bundle.open(draft), self.orchestrator)
                if keep and not result.blocked:
                    path = self.home.bundle_path(self.slug, result.digest)
                    move_atomically(draft, path)
                    result.bundle_path = path
                    shutil.rmtree(self.home.path / "compile" / self.slug, ignore_errors=True)
            finally:
                draft.unlink(missing_ok=True)

    def _check_loading(self, bundle: Bundle, orchestrator: Orchestrator) -> None:
        problem = orchestrator.loading_problem(bundle, self.product_dir, self.manifest, self.home)
        if problem is None:
            return
        assert self._result is not None and self._result.report is not None
        found = cannot_be_served(problem, f"{self.shown}/{SPEC_FILE}")
        self.findings = sort_findings([*self.findings, found])
        self._result.findings = self.findings
        self._result.report["findings"] = [each.to_dict() for each in self.findings]

    def _write_bundle(self, staging: Path, path: Path) -> None:
        import orjson

        assert self._result is not None and self._layout is not None
        sources = []
        for folder, folders, names in _walk(staging):
            folders[:] = [name for name in folders if name not in ("target", "logs")]
            sources += [(folder / name).relative_to(staging).as_posix() for name in names]
        write_bundle(
            path,
            digest=self._result.digest,
            slug=self.slug,
            product_name=self.name,
            documents={**self._documents, REPORT: orjson.dumps(self._result.report, default=str)},
            sources_root=staging,
            sources=sources,
            project=self._layout.project,
        )


def _leaving_links(staging: Path, shown: str) -> list[Finding]:
    """Return the links, as packages may bring them, that lead out of the sources: what they name would be stored and run."""
    real, findings = staging.resolve(), []
    for folder, folders, names in os.walk(staging):
        for name in (*folders, *names):
            path = Path(folder, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(real):
                place = path.relative_to(staging).as_posix()
                findings.append(
                    Finding(
                        code="path-outside-project",
                        severity="error",
                        message=f"the link {place} leads out of the project",
                        file=f"{shown}/packages.yml",
                        found=place,
                        allowed="files, and links to files of the same project or package",
                        fix="Take another version of the package, or remove the link.",
                    )
                )
    return findings


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    for folder, folders, names in os.walk(root, followlinks=True):
        yield Path(folder), folders, names


def _layer(parsed: Any) -> dict[str, Any]:
    document: Document = parsed.document
    layer: dict[str, Any] = {"file": document.display, "sha256": document.sha256}
    if parsed.value is not None:
        layer |= {
            "name": parsed.value.metadata.name,
            "version": parsed.value.metadata.version,
            "scope": parsed.value.scope,
        }
    return layer


def _outside_root(state: SourceState, root: Path) -> list[Finding]:
    real_root = root.resolve()
    findings = []
    for file in state.files:
        try:
            inside = file.path.resolve().is_relative_to(real_root)
        except (OSError, RuntimeError):
            inside = True
        if not inside:
            shown = display_path(file.path, root)
            findings.append(
                Finding(
                    code="path-outside-project",
                    severity="error",
                    message=f"{shown} lies outside the project",
                    file=shown,
                    fix=f"Move it below {root.name}/, or take its folder out of {PROJECT_FILE}."
                    + without_marker(root),
                )
            )
    return findings


def _plugin_places(chain: ManifestChain) -> dict[str, tuple[str, int]]:
    """Return file and line of each plugin's type, in the nearest layer that names it.

    Further engines are `additional_compute[0]` and so on, as findings name their field.
    """
    places: dict[str, tuple[str, int]] = {}
    lists_engines = False
    for layer in chain.layers:
        if layer.value is None:
            continue
        plugins = layer.value.plugins
        paths: dict[str, DocumentPath] = {
            category: (category,)
            for category in PLUGIN_CATEGORIES
            if category not in places and getattr(plugins, category) is not None
        }
        if plugins.additional_compute is not None and not lists_engines:
            lists_engines = True
            for position in range(len(plugins.additional_compute)):
                paths[f"additional_compute[{position}]"] = ("additional_compute", position)
        for category, path in paths.items():
            line, _column = layer.document.position(("plugins", *path, "type"))
            places[category] = (layer.document.display, line)
    return places
