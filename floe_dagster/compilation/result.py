"""What a compilation gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.findings import Finding

if TYPE_CHECKING:
    from floe_dagster.schemas.artifacts import CompiledArtifacts
    from floe_dagster.schemas.product_index import ProductIndex

STAGES = ("LOAD", "VALIDATE", "RESOLVE", "ENFORCE", "COMPILE", "GENERATE")
NOTHING_PUBLISHED = "nothing-published"
"""Code of the finding that a product publishes no table."""


@dataclass(frozen=True, slots=True)
class StageTiming:
    """How long one stage took.

    Args:
        name: One of `STAGES`.
        seconds: Wall time.
    """

    name: str
    seconds: float


@dataclass
class CompileResult:
    """The outcome of compiling one product, good or not.

    Args:
        product_dir: The product's folder.
        slug: The product's slug; the folder's name where the spec cannot be read.
        name: The product's name; the folder's name where the spec cannot be read.
        digest: `sha256:…` over the sources.
        stages: The stages that ran; none when nothing had changed.
        findings: Everything found, ordered by file and line.
        unchanged: Nothing had changed since the last good compilation: the bundle is that one.
        bundle_path: The bundle; None when blocked, or when nothing was to be written.
        report: The report of this very compilation; see `summary`.
        built: The artifact of this very compilation; see `artifact`.
        built_index: The index of this very compilation; see `index`.
    """

    product_dir: Path
    slug: str
    name: str
    digest: str
    stages: list[StageTiming] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unchanged: bool = False
    bundle_path: Path | None = None
    report: dict[str, Any] | None = None
    built: CompiledArtifacts | None = None
    built_index: ProductIndex | None = None

    @property
    def blocked(self) -> bool:
        """At least one finding is an error: the last good state stays served."""
        return any(finding.severity == "error" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 fine, 1 a policy blocks, 2 a document or project cannot be used."""
        errors = [finding for finding in self.findings if finding.severity == "error"]
        if not errors:
            return 0
        return 2 if any(finding.kind == "input" for finding in errors) else 1

    @cached_property
    def bundle(self) -> Bundle | None:
        """The bundle, opened; None where there is no path."""
        return Bundle.open(self.bundle_path) if self.bundle_path else None

    @cached_property
    def artifact(self) -> CompiledArtifacts | None:
        """The compiled artifact; None when blocked."""
        if self.built is not None:
            return self.built
        return self.bundle.artifact() if self.bundle else None

    @cached_property
    def index(self) -> ProductIndex | None:
        """The index that the definitions are built from; None when blocked."""
        if self.built_index is not None:
            return self.built_index
        return self.bundle.index() if self.bundle else None

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The report as JSON values, as in the bundle.

        It has the digest, the stages with their seconds, the findings, governance with who decided each
        field, the policies' results and the manifest chain.
        """
        if self.report is not None:
            return self.report
        return self.bundle.report() if self.bundle else {}
