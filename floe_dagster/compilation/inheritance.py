"""Chains of platform manifests: a domain's inherits from its parent, up to the enterprise's."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from floe_dagster.compilation.documents import NOT_OPENED, Document, DocumentPath, dotted, read_document
from floe_dagster.compilation.validation import Parsed, parse_manifest
from floe_dagster.findings import Finding, InputError
from floe_dagster.home import display_path, without_marker
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.plugins import ApprovedPlugins, ManifestPlugins
from floe_dagster.schemas.product import ProductSpec


@dataclass(slots=True)
class ManifestChain:
    """The platform's manifests of one product.

    Args:
        layers: Nearest first.
        findings: Everything that is wrong or odd in them.
        merged: Everything but governance, where the nearest layer that says something wins; None where a
            layer has errors.
    """

    layers: list[Parsed[PlatformManifest]]
    findings: list[Finding] = field(default_factory=list)
    merged: PlatformManifest | None = None


@dataclass(frozen=True, slots=True)
class NamedBy:
    """Who names a manifest: where a person has to look who wants another one.

    Args:
        words: `platform.manifest in shop/floe.yaml`, `--manifest`, `the environment variable FLOE_MANIFEST`.
        document: The document that names it; None where none does.
        field: The field in it.
    """

    words: str
    document: Document | None = None
    field: DocumentPath = ()

    def in_error(self, error: InputError, path: Path, root: Path) -> InputError:
        """Return the error with the place that names the manifest, where the file itself could not be opened.

        What is wrong inside of the file stays as it is: that is mended there.
        """
        shown = display_path(path, root)
        return InputError([self._placed(finding, shown) for finding in error.findings])

    def _placed(self, finding: Finding, shown: str) -> Finding:
        if finding.code not in NOT_OPENED:
            return finding
        message = f"{finding.message}; {self.words} names it"
        if self.document is None:
            return replace(finding, message=message, fix=f"Mend {self.words}, or write the file.")
        line, column = self.document.position(self.field)
        return replace(
            finding,
            message=message,
            file=self.document.display,
            line=line,
            column=column,
            field=dotted(self.field),
            found=repr(shown),
            fix="Mend the path, which is relative to this file, or write the file.",
        )


def who_names(spec: Parsed[ProductSpec], *, option: Path | None, variable: Path | None) -> NamedBy:
    """Return who names the platform manifest of a product.

    Args:
        spec: The product spec.
        option: From `--manifest`, or whoever else gives one to the compilation.
        variable: From `FLOE_MANIFEST`.
    """
    if option is not None:
        return NamedBy("--manifest")
    if variable is not None:
        return NamedBy("the environment variable FLOE_MANIFEST")
    return NamedBy(f"platform.manifest in {spec.document.display}", spec.document, ("platform", "manifest"))


def resolve_manifest_path(spec: Parsed[ProductSpec], *, root: Path, override: Path | None = None) -> Path:
    """Return the platform manifest that a product runs on.

    Args:
        spec: The product spec; `platform.manifest` is relative to it.
        root: The project root, which a path in a document may not leave.
        override: From `--manifest` or `FLOE_MANIFEST`; may lie anywhere.

    Raises:
        InputError: No manifest is named, or it lies outside the project.
    """
    document = spec.document
    if override is not None:
        return Path(os.path.abspath(override))
    platform = document.data.get("platform") if isinstance(document.data, dict) else None
    named = platform.get("manifest") if isinstance(platform, dict) else None
    if not isinstance(named, str) or not named.strip():
        raise InputError(
            [
                Finding(
                    code="no-manifest",
                    severity="error",
                    message="the product names no platform manifest",
                    file=document.display,
                    line=1,
                    field="platform.manifest",
                    fix="Add `platform: {manifest: ../../manifests/local.yaml}`, or give --manifest.",
                )
            ]
        )
    return _inside(named, document.path.parent, root, spec, ("platform", "manifest"))


def load_manifest_chain(path: Path, *, root: Path, named_by: NamedBy | None = None) -> ManifestChain:
    """Read a manifest and its parents.

    Args:
        path: The nearest manifest.
        root: The project root.
        named_by: Who names it, for the error where it cannot be read.

    Raises:
        InputError: The nearest manifest cannot be read as YAML; a parent that cannot is a finding.
    """
    chain = ManifestChain([])
    seen: list[Path] = []
    current: Path | None = path
    while current is not None:
        real = Path(os.path.realpath(current))
        if real in seen:
            names = " -> ".join(display_path(item, root) for item in [*seen[seen.index(real) :], real])
            chain.findings.append(
                _parent_finding(chain.layers[-1], "manifest-cycle", f"manifests inherit in a circle: {names}")
            )
            break
        seen.append(real)
        try:
            parsed = parse_manifest(read_document(current, root=root))
        except InputError as error:
            if not chain.layers:
                raise named_by.in_error(error, current, root) if named_by else error from None
            chain.findings += _parent_named_by(chain.layers[-1]).in_error(error, current, root).findings
            break
        chain.layers.append(parsed)
        chain.findings += parsed.findings
        current = _parent_of(parsed, root, chain)
    if not any(finding.severity == "error" for finding in chain.findings):
        chain.merged = _merge([layer.value for layer in chain.layers if layer.value is not None])
    return chain


def _parent_of(parsed: Parsed[PlatformManifest], root: Path, chain: ManifestChain) -> Path | None:
    data = parsed.document.data
    key = "parentManifest" if "parentManifest" in data else "parent_manifest"
    named, scope = data.get(key), data.get("scope")
    problem = None
    if scope == "domain" and not named:
        problem = "scope: domain needs parent_manifest"
    elif scope == "enterprise" and named:
        problem = "scope: enterprise is the root of a chain and has no parent_manifest"
    elif named and scope != "domain":
        problem = "a manifest with parent_manifest says scope: domain"
    if problem:
        line, column = parsed.document.position(("scope",) if scope else (key,))
        chain.findings.append(
            Finding(
                code="manifest-scope",
                severity="error",
                message=problem,
                file=parsed.document.display,
                line=line,
                column=column,
                field="scope",
                fix="Add or remove parent_manifest, or correct scope.",
            )
        )
    if not isinstance(named, str) or not named.strip():
        return None
    try:
        return _inside(named, parsed.document.path.parent, root, parsed, (key,))
    except InputError as error:
        chain.findings += error.findings
        return None


def _inside(named: str, folder: Path, root: Path, parsed: Parsed[Any], field_path: tuple[str, ...]) -> Path:
    path = Path(os.path.normpath(folder / named))
    real_root, real = Path(os.path.realpath(root)), Path(os.path.realpath(path))
    if not os.path.isabs(named) and (real.is_relative_to(real_root) or not folder.is_relative_to(root)):
        return path
    line, column = parsed.document.position(field_path)
    raise InputError(
        [
            Finding(
                code="path-outside-project",
                severity="error",
                message="the path of a manifest leaves the project",
                file=parsed.document.display,
                line=line,
                column=column,
                field=".".join(field_path),
                found=repr(named),
                allowed="a path relative to this file, inside the project",
                fix="Move the manifest into the project, or give it with --manifest or FLOE_MANIFEST."
                + without_marker(root),
            )
        ]
    )


def _parent_named_by(layer: Parsed[PlatformManifest]) -> NamedBy:
    key = "parentManifest" if "parentManifest" in layer.document.data else "parent_manifest"
    return NamedBy(f"{key} in {layer.document.display}", layer.document, (key,))


def _parent_finding(layer: Parsed[PlatformManifest], code: str, message: str) -> Finding:
    line, column = layer.document.position(("parent_manifest",))
    return Finding(
        code=code,
        severity="error",
        message=message,
        file=layer.document.display,
        line=line,
        column=column,
        field="parent_manifest",
        fix="Correct parent_manifest.",
    )


def _merge(layers: list[PlatformManifest]) -> PlatformManifest:
    nearest = layers[0]
    slots = {
        slot: next((value for layer in layers if (value := getattr(layer.plugins, slot)) is not None), None)
        for slot in ManifestPlugins.model_fields
    }

    def first(name: str) -> object:
        return next((value for layer in layers if (value := getattr(layer, name)) is not None), None)

    presets = {}
    for layer in reversed(layers):
        presets.update(layer.resource_presets or {})
    approved: dict[str, list[str]] = {}
    for layer in layers:
        for category, types in layer.approved_plugins.by_category().items() if layer.approved_plugins else ():
            # A parent's list is a limit: a child may only narrow it.
            approved[category] = [t for t in approved.get(category, types) if t in types]
    return nearest.model_copy(
        update={
            "plugins": ManifestPlugins.model_construct(**slots),
            "observability": first("observability"),
            "approved_plugins": ApprovedPlugins(**approved) if approved else None,
            "defaults": first("defaults"),
            "resource_presets": presets or None,
        }
    )
