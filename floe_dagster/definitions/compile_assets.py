"""Compilation as assets: one step, four outputs, the policies as blocking checks, the state last."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.result import CompileResult
from floe_dagster.compilation.stages import compile_product
from floe_dagster.definitions.asset_specs import asset_key
from floe_dagster.definitions.reload import reload_and_verify
from floe_dagster.definitions.state import store_bundle
from floe_dagster.home import FloeHome
from floe_dagster.policies import POLICIES

COMPILE_ASSETS = {
    "platform_manifest": "The chain of platform manifests that the product runs on.",
    "resolved_governance": "Governance merged over all layers, stricter wins, and who decided each field.",
    "compiled_artifacts": "The compiled product: what everything downstream reads.",
    "dbt_manifest": "dbt's own manifest of the product, checked by every policy.",
}


def build_compile_definitions(
    slug: str, product_dir: Path, manifest: Path | None, home: FloeHome, note: str | None = None
) -> dg.Definitions:
    """Return the compile assets of one product and the job that runs them.

    Args:
        slug: The product's slug.
        product_dir: Its folder.
        manifest: Platform manifest in place of the one that `floe.yaml` names.
        home: The writable folder.
        note: Shown with the assets, for example that nothing is compiled yet.
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
        for policy in POLICIES
    }

    @dg.multi_asset(
        name=f"{slug}_compile_step",
        specs=specs,
        check_specs=list(checks.values()),
        pool="floe_defs_state",
        can_subset=False,
    )
    def compile_step(context: dg.AssetExecutionContext) -> Iterator[Any]:
        previous = _previous_artifact(context, home, slug)
        result = compile_product(
            product_dir,
            manifest=manifest,
            home=home,
            on_stage=lambda stage: context.log.info(f"stage {stage}"),
        )
        for finding in result.findings:
            log = {"error": context.log.error, "warning": context.log.warning}.get(
                finding.severity, context.log.info
            )
            log(finding.to_text())
        yield from _check_results(keys, checks, result)
        if result.blocked:
            raise dg.Failure(
                f"{result.name} is not compiled; the last good state stays served.\n"
                + "\n".join(f.to_text() for f in result.findings if f.severity == "error"),
                metadata=_findings_metadata(result),
                allow_retries=False,
            )
        assert result.bundle is not None
        stored = store_bundle(context.instance, slug, result.bundle, home)
        if not stored:
            context.log.warning("the instance has no state storage; the bundle stays in FLOE_HOME alone")
        digest = dg.DataVersion(result.digest)
        for name, metadata in _metadata(result, previous).items():
            yield dg.MaterializeResult(asset_key=keys[name], metadata=metadata, data_version=digest)
        if stored:
            reload_and_verify(context, slug, result.digest)

    job = dg.define_asset_job(
        f"{slug}_compile",
        selection=dg.AssetSelection.assets(compile_step) | dg.AssetSelection.checks_for_assets(compile_step),
        description="Compile the product and store its state.",
    )
    return dg.Definitions(assets=[compile_step], jobs=[job])


def _check_results(
    keys: dict[str, dg.AssetKey], checks: dict[str, dg.AssetCheckSpec], result: CompileResult
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
                "findings": dg.MetadataValue.md(_findings_table(findings)),
            },
        )


def _metadata(result: CompileResult, previous: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
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
            "governance": dg.MetadataValue.md(_governance_table(summary["governance"]["decisions"])),
        },
        "dbt_manifest": {
            "models": len(artifact.transforms.models) if artifact.transforms else 0,
            **_findings_metadata(result),
        },
        "compiled_artifacts": {
            "digest": result.digest,
            "version": artifact.version,
            "changes": dg.MetadataValue.md(
                _changes(previous, artifact.model_dump(mode="json", exclude={"metadata": {"compiled_at"}}))
            ),
            "stages": dg.MetadataValue.md(timings),
            "unchanged": result.unchanged,
        },
    }


def _stages(result: CompileResult) -> list[tuple[str, float]]:
    if result.stages:
        return [(stage.name, stage.seconds) for stage in result.stages]
    # Nothing had changed: those of the compilation that made the bundle, which ends before it is written.
    return [(stage["name"], stage["seconds"]) for stage in result.summary["stages"]]


def _findings_metadata(result: CompileResult) -> dict[str, Any]:
    rows = [finding.to_dict() for finding in result.findings]
    return {
        "errors": sum(finding.severity == "error" for finding in result.findings),
        "warnings": sum(finding.severity == "warning" for finding in result.findings),
        "findings": dg.MetadataValue.md(_findings_table(rows)),
    }


def _findings_table(findings: list[dict[str, Any]]) -> str:
    if not findings:
        return "none"
    lines = ["| severity | place | what | fix |", "|---|---|---|---|"]
    for finding in findings:
        place = f"{finding.get('file', '')}:{finding.get('line', '')}".rstrip(":")
        cells = (finding["severity"], place, finding["message"], finding.get("fix") or "")
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _governance_table(decisions: list[dict[str, Any]]) -> str:
    if not decisions:
        return "no layer states any; the enforcement level is warn"
    lines = ["| field | value | decided by | place | overruled |", "|---|---|---|---|---|"]
    for decision in decisions:
        overruled = ", ".join(f"{layer}: {value}" for layer, value in decision["overruled"]) or "-"
        place = f"{decision['file']}:{decision['line']}"
        lines.append(
            f"| {decision['field']} | {decision['value']} | {decision['decided_by']} | {place} | {overruled} |"
        )
    return "\n".join(lines)


def _previous_artifact(context: Any, home: FloeHome, slug: str) -> dict[str, Any] | None:
    storage = context.instance.defs_state_storage
    from floe_dagster.definitions.state import state_key

    version = storage.get_latest_version(state_key(slug)) if storage else None
    try:
        artifact = Bundle.open(home.state_dir(slug) / f"{version}.zip").artifact()
        return artifact.model_dump(mode="json", exclude={"metadata": {"compiled_at"}})
    except Exception:  # an older state that cannot be read is the same as none
        return None


def _changes(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    from floe_dagster.compilation.changes import document_changes

    if before is None:
        return "first state"
    changes = document_changes(before, after)
    return "\n".join(f"- `{path}`: {old} → {new}" for path, old, new in changes) or "none"
