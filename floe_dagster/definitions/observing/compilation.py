"""A compilation seen from outside: its stages, its findings, the outcome of its policies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from floe_dagster.compilation.result import CompileResult
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.definitions.observing.times import nanoseconds
from floe_dagster.observability.telemetry import fail


def tell_compilation(
    step: ObservedStep, result: CompileResult, begun: float, stages: Sequence[tuple[str, float]]
) -> None:
    """Tell what a compilation did and found.

    Args:
        step: That compiled.
        result: What came of it.
        begun: Seconds since the epoch.
        stages: Name and beginning of each stage in seconds since the epoch, none where nothing had changed; the last
            entry is the end.
    """
    if not step.observed.enabled:
        return
    telemetry, slug = step.observed.telemetry, step.observed.slug
    cache = "hit" if result.unchanged else "miss"
    compilation = telemetry.start_span(
        "compile",
        step.span,
        start=nanoseconds(begun),
        attributes={**step.run.attributes(), "floe.cache": cache, "floe.source_digest": result.digest},
    )
    for (name, at), (_next, ended) in pairwise(stages):
        span = telemetry.start_span(
            f"stage {name}",
            compilation,
            start=nanoseconds(at),
            attributes={**step.run.attributes(), "floe.stage": name},
        )
        span.end(nanoseconds(ended))
    errors = [finding for finding in result.findings if finding.severity == "error"]
    if errors and telemetry.enabled:
        fail(compilation, "\n".join(finding.message for finding in errors), errors[0].code)
    compilation.end(nanoseconds(stages[-1][1]))
    telemetry.instruments.add("compilations", 1, product=slug, cache=cache, blocked=result.blocked)
    for finding in result.findings:
        telemetry.instruments.add("findings", 1, product=slug, severity=finding.severity, code=finding.code)
    policies = result.summary.get("policies", {}).get("results", {})
    for name, policy in policies.items():
        telemetry.instruments.add(
            "checks",
            1,
            product=slug,
            kind="policy",
            policy=name,
            level=policy["level"],
            outcome=policy["status"],
        )
    if step.observed.lineage.enabled:
        from floe_dagster.observability.lineage.facets import Assertion

        step.assertions += [
            Assertion(
                name=name,
                kind=f"policy:{name}",
                success=policy["status"] in ("passed", "off"),
                severity="error" if policy["level"] == "strict" else "warn",
                actual=str(len(policy.get("findings", ()))),
            )
            for name, policy in policies.items()
        ]
