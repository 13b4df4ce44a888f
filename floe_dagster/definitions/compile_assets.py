"""Compilation as assets: one step, four outputs, the policies as blocking checks, the state last."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.changes import ProductView, product_changes
from floe_dagster.compilation.engine_change import engine_consequences
from floe_dagster.compilation.result import CompileResult
from floe_dagster.definitions.asset_specs import asset_key
from floe_dagster.definitions.compiling import compile_product
from floe_dagster.definitions.observing.compilation import tell_compilation
from floe_dagster.definitions.observing.process import Observed, observe
from floe_dagster.definitions.observing.step import ObservedStep
from floe_dagster.definitions.reload import reload_and_verify
from floe_dagster.definitions.run_retries import run_retry_tags
from floe_dagster.definitions.source_links import SourceLinks
from floe_dagster.definitions.state import store_bundle
from floe_dagster.digests import digest_of
from floe_dagster.home import FloeHome
from floe_dagster.policies import POLICIES

SHOWN_CHANGES = 200
COMPILE_ASSETS = {
    "platform_manifest": "The chain of platform manifests that the product runs on.",
    "resolved_governance": "Governance merged over all layers, stricter wins, and who decided each field.",
    "compiled_artifacts": "The compiled product: what everything downstream reads.",
    "dbt_manifest": "dbt's own manifest of the product, checked by every policy.",
}


def build_compile_definitions(
    slug: str,
    product_dir: Path,
    manifest: Path | None,
    home: FloeHome,
    note: str | None = None,
    served: str | None = None,
    observed: Callable[[], Observed] | None = None,
    tags: Mapping[str, Any] | None = None,
    manifest_sha256: str | None = None,
) -> dg.Definitions:
    """Return the compile assets of one product and the job that runs them.

    Args:
        slug: The product's slug.
        product_dir: Its folder.
        manifest: Platform manifest in place of the one that `floe.yaml` names.
        home: The writable folder.
        note: Shown with the assets, for example that nothing is compiled yet.
        served: Digest of the state that the location serves: what a new one is compared with.
        observed: Who is told of a compilation that gives no state; nobody before the first one.
        tags: `dagster-k8s/config` of the product.
        manifest_sha256: Digests of the manifests that may count.
    """
    keys = {name: asset_key(slug, name) for name in COMPILE_ASSETS}
    upstream: dict[str, list[str]] = {
        "platform_manifest": [],
        "resolved_governance": ["platform_manifest"],
        "compiled_artifacts": ["resolved_governance", "dbt_manifest"],
        "dbt_manifest": ["platform_manifest"],
    }
    specs = [
        dg.AssetSpec(
            key=keys[name],
            deps=[keys[up] for up in upstream[name]],
            group_name="compile",
            kinds={"floe"} if name != "dbt_manifest" else {"dbt"},
            description=f"{note}\n\n{text}" if note else text,
            skippable=True,
        )
        for name, text in COMPILE_ASSETS.items()
    ]
    checks = {
        policy.name: dg.AssetCheckSpec(
            name=policy.name, asset=keys["dbt_manifest"], description=policy.description, blocking=True
        )
        for policy in POLICIES.values()
    }

    @dg.multi_asset(
        name=f"{slug}_compile_step",
        specs=specs,
        check_specs=list(checks.values()),
        pool="floe_defs_state",
        op_tags=tags,
        can_subset=False,
    )
    def compile_step(context: dg.AssetExecutionContext) -> Iterator[Any]:
        begun, stages = time.time(), []

        def on_stage(stage: str) -> None:
            stages.append((stage, time.time()))
            context.log.info(f"stage {stage}")

        result = compile_product(
            product_dir, manifest=manifest, home=home, on_stage=on_stage, manifest_sha256=manifest_sha256
        )
        stages.append(("", time.time()))
        # Who is told is what was just compiled.
        told = observed() if observed is not None else None
        if result.artifact is not None and result.index is not None:
            told = observe(result.artifact, result.index, product_dir, home)
        if told is None:
            yield from _report(context, result)
            return
        step = ObservedStep(told, context)
        with step.observing(begun):
            tell_compilation(step, result, begun, stages)
            yield from _report(context, result)

    def _report(context: dg.AssetExecutionContext, result: CompileResult) -> Iterator[Any]:
        previous = _view_of(served, slug, home)
        for finding in result.findings:
            log = {"error": context.log.error, "warning": context.log.warning}.get(
                finding.severity, context.log.info
            )
            log(finding.to_text())
        links = SourceLinks.of_product(result.summary.get("repository"), product_dir)
        yield from _check_results(keys, checks, result, links)
        if result.blocked:
            raise dg.Failure(
                f"{result.name} is not compiled; the last good state stays served.\n"
                + "\n".join(f.to_text() for f in result.findings if f.severity == "error"),
                metadata=_findings_metadata(result, links),
                allow_retries=False,
            )
        assert result.bundle is not None
        stored = store_bundle(context.instance, slug, result.bundle, home)
        if not stored:
            context.log.warning("the instance has no state storage; the bundle stays in FLOE_HOME alone")
        versions = _data_versions(result)
        for name, metadata in _metadata(result, previous, links).items():
            yield dg.MaterializeResult(
                asset_key=keys[name], metadata=metadata, data_version=dg.DataVersion(versions[name])
            )
        if stored:
            reload_and_verify(context, slug, result.digest)

    job = dg.define_asset_job(
        f"{slug}_compile",
        selection=dg.AssetSelection.assets(compile_step) | dg.AssetSelection.checks_for_assets(compile_step),
        description="Compile the product and store its state.",
        tags={**(tags or {}), **run_retry_tags()},
    )
    return dg.Definitions(assets=[compile_step], jobs=[job])


def _data_versions(result: CompileResult) -> dict[str, str]:
    summary = result.summary
    chain = [layer["sha256"] for layer in summary.get("manifest_chain", [])]
    decided = [[d["field"], d["value"]] for d in summary["governance"]["decisions"]]
    return {
        "platform_manifest": _digest(chain),
        "resolved_governance": _digest(decided),
        "compiled_artifacts": result.digest,
        "dbt_manifest": result.digest,
    }


def _digest(value: Any) -> str:
    return digest_of(json.dumps(value, sort_keys=True, default=str).encode())


def _check_results(
    keys: dict[str, dg.AssetKey],
    checks: dict[str, dg.AssetCheckSpec],
    result: CompileResult,
    links: SourceLinks,
) -> Iterator[dg.AssetCheckResult]:
    policies = result.summary.get("policies", {}).get("results", {})
    for name in checks:
        policy = policies.get(name)
        findings = (policy or {}).get("findings", [])
        failed = policy is None or policy["status"] == "failed"
        status = policy["status"] if policy else "not reached: the documents or the dbt project have errors"
        yield dg.AssetCheckResult(
            asset_key=keys["dbt_manifest"],
            check_name=name,
            passed=policy is not None and policy["status"] in ("passed", "off"),
            severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
            metadata={
                "status": status,
                "level": policy["level"] if policy else "-",
                "violations": len(findings),
                "findings": dg.MetadataValue.md(_findings_table(findings, links)) if findings else "none",
                **_exempted((policy or {}).get("exempted", [])),
            },
        )


def _exempted(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the metadata that says what a policy has found where the platform exempts it; none where it does not."""
    if not found:
        return {}
    lines = ["| model | what | until | owner | reason |", "|---|---|---|---|---|"]
    for each in found:
        finding, why = each["finding"], each["exemption"]
        cells = (finding.get("model") or "", finding["message"], why["until"], why["owner"], why["reason"])
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return {"exempted": dg.MetadataValue.md("\n".join(lines))}


def _metadata(
    result: CompileResult, previous: ProductView | None, links: SourceLinks
) -> dict[str, dict[str, Any]]:
    summary, artifact = result.summary, result.artifact
    assert artifact is not None
    timings = "\n".join(
        ["| stage | seconds |", "|---|---:|"]
        + [f"| {name} | {seconds:.3f} |" for name, seconds in _stages(result)]
    )
    layers = summary.get("manifest_chain", [])
    return {
        "platform_manifest": {
            "chain": dg.MetadataValue.md(
                "\n".join(
                    ["| layer | version | file | sha256 |", "|---|---|---|---|"]
                    + [
                        f"| {layer.get('name')} | {layer.get('version')} | {layer['file']} | "
                        f"{layer['sha256'][:12]} |"
                        for layer in layers
                    ]
                )
            )
        },
        "resolved_governance": {
            "effective_level": summary["governance"]["effective_level"],
            "governance": dg.MetadataValue.md(_governance_table(summary["governance"]["decisions"], links)),
        },
        "dbt_manifest": {
            "models": len(artifact.transforms.models) if artifact.transforms else 0,
            **_findings_metadata(result, links),
        },
        "compiled_artifacts": {
            "digest": result.digest,
            "version": artifact.version,
            "changes": dg.MetadataValue.md(_changes_table(previous, result)),
            "stages": dg.MetadataValue.md(timings),
            "unchanged": result.unchanged,
        },
    }


def _stages(result: CompileResult) -> list[tuple[str, float]]:
    if result.stages:
        return [(stage.name, stage.seconds) for stage in result.stages]
    # Nothing had changed: those of the compilation that made the bundle, which ends before it is written.
    return [(stage["name"], stage["seconds"]) for stage in result.summary["stages"]]


def _findings_metadata(result: CompileResult, links: SourceLinks) -> dict[str, Any]:
    rows = [finding.to_dict() for finding in result.findings]
    return {
        "errors": sum(finding.severity == "error" for finding in result.findings),
        "warnings": sum(finding.severity == "warning" for finding in result.findings),
        "findings": dg.MetadataValue.md(_findings_table(rows, links)) if rows else "none",
    }


def _findings_table(findings: list[dict[str, Any]], links: SourceLinks) -> str:
    lines = ["| severity | place | what | fix |", "|---|---|---|---|"]
    for finding in findings:
        place = links.markdown(finding.get("file") or "", finding.get("line"))
        cells = (finding["severity"], place, finding["message"], finding.get("fix") or "")
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _governance_table(decisions: list[dict[str, Any]], links: SourceLinks) -> str:
    if not decisions:
        return "no layer states any; the enforcement level is warn"
    lines = ["| field | value | rule | decided by |", "|---|---|---|---|"]
    for decision in decisions:
        who = f"{decision['decided_by']} ({links.markdown(decision['file'], decision['line'])})"
        overruled = ", ".join(f"{layer}: {value}" for layer, value in decision["overruled"])
        if overruled:
            who += f"; overruled: {overruled}"
        value = "-" if decision["value"] is None else _shown(decision["field"], decision["value"])
        # A state that an earlier version compiled says nothing of the rule.
        lines.append(f"| {decision['field']} | {value} | {decision.get('rule', '-')} | {who} |")
    return "\n".join(lines)


def _shown(field: str, value: Any) -> str:
    if field == "exemptions":
        value = "; ".join(
            f"{each['model']} from {each['policy']} until {each['until']}: {each['reason']} ({each['owner']})"
            for each in value
        )
    return str(value).replace("|", "\\|")


def _view_of(digest: str | None, slug: str, home: FloeHome) -> ProductView | None:
    if digest is None:
        return None
    try:
        return ProductView.of_bundle(Bundle.open(home.bundle_path(slug, digest)))
    except Exception:  # an older state that cannot be read is the same as none
        return None


def _changes_table(previous: ProductView | None, result: CompileResult) -> str:
    current = ProductView.of_result(result)
    if previous is None or current is None:
        return "first state"
    changes = product_changes(previous, current)
    if not changes:
        return "none for consumers, governance or platform"
    lines = ["| area | field | before | now |", "|---|---|---|---|"]
    for change in changes[:SHOWN_CHANGES]:
        cells = (cell.replace("|", "\\|").replace("\n", " ") for cell in change.to_row())
        lines.append("| " + " | ".join(cells) + " |")
    if len(changes) > SHOWN_CHANGES:
        lines.append(f"| | and {len(changes) - SHOWN_CHANGES:,} more | | |")
    if engine := engine_consequences(previous.build, current.build):
        lines += ["", "What the change of engine means:", ""]
        lines += [
            f"- **{each.topic}** {', '.join(each.names)}{': ' if each.names else ''}{each.text}"
            for each in engine
        ]
    return "\n".join(lines)
