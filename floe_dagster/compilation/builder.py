"""Builds the compiled artifact out of what the stages found."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from importlib import metadata
from typing import Any, Literal

from floe_dagster.compilation.inheritance import ManifestChain
from floe_dagster.policies import PolicyReport
from floe_dagster.policies.asset_names import asset_name, named_by
from floe_dagster.policies.tiers import tier_of
from floe_dagster.schemas.artifacts import (
    ArtifactMetadata,
    BatchProcessorConfig,
    CompiledArtifacts,
    EnforcementResult,
    InheritanceLayer,
    ObservabilityConfig,
    PluginRef,
    ProductIdentity,
    ResolvedGovernance,
    ResolvedModel,
    ResolvedPlugins,
    ResolvedTransforms,
    ResourceAttributes,
    SamplingConfig,
    TelemetryConfig,
    TelemetryLogging,
)
from floe_dagster.schemas.base import SecretReference
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.plugins import PLUGIN_CATEGORIES, PluginDefaults
from floe_dagster.schemas.product import ProductSpec

DEFAULT_OTLP_ENDPOINT = "http://localhost:4317"


def build_artifacts(
    spec: ProductSpec,
    chain: ManifestChain,
    dbt_manifest: Mapping[str, Any],
    *,
    source_hash: str,
    dbt_profiles: Mapping[str, Any],
    compiled_at: datetime,
    governance: ResolvedGovernance | None = None,
    enforcement: EnforcementResult | None = None,
) -> CompiledArtifacts:
    """Return the artifact of one product.

    Args:
        spec: The product spec.
        chain: Its manifests, merged.
        dbt_manifest: dbt's manifest.
        source_hash: `sha256:…` of the sources.
        dbt_profiles: Content of `profiles.yml`.
        compiled_at: UTC.
        governance: Merged governance; None where no layer has any.
        enforcement: What the policies said.
    """
    if chain.merged is None:
        raise ValueError("the manifest chain has errors")
    modes: tuple[Literal["simple", "centralized", "mesh"], ...] = ("simple", "centralized", "mesh")
    mode = modes[min(len(chain.layers), 2)]
    domain = next(
        (
            layer.value.metadata.name
            for layer in chain.layers
            if layer.value and layer.value.scope == "domain"
        ),
        "default",
    )
    plugins = resolved_plugins(chain.merged, named_engines(spec))
    return CompiledArtifacts(
        metadata=ArtifactMetadata(
            compiled_at=compiled_at,
            floe_version=_version(),
            source_hash=source_hash,
            product_name=spec.metadata.name,
            product_version=spec.metadata.version,
        ),
        identity=ProductIdentity(
            product_id=f"{domain}.{spec.slug}", domain=domain, repository=spec.repository
        ),
        mode=mode,
        inheritance_chain=[
            InheritanceLayer(
                name=layer.value.metadata.name,
                version=layer.value.metadata.version,
                scope=layer.value.scope,
                ref=layer.document.path.name,
            )
            for layer in chain.layers
            if layer.value is not None
        ],
        observability=_observability(chain.merged, spec, mode),
        plugins=plugins,
        transforms=_transforms(spec, dbt_manifest, plugins.compute.type),
        dbt_profiles=dict(dbt_profiles),
        governance=governance,
        enforcement_result=enforcement,
        environment=spec.environment or None,
    )


def plugin_types(manifest: PlatformManifest) -> dict[str, str]:
    """Return the plugin type in use by category."""
    types: dict[str, str] = (manifest.defaults or PluginDefaults()).model_dump()
    for category in PLUGIN_CATEGORIES:
        plugin = getattr(manifest.plugins, category)
        if plugin is not None:
            types[category] = plugin.type
    return types


def listed_engines(manifest: PlatformManifest) -> list[str]:
    """Return the engines that a transform may name, the default first."""
    default = plugin_types(manifest)["compute"]
    # A nearer layer may have made one of its parent's further engines the default.
    further = [plugin.type for plugin in manifest.plugins.additional_compute or () if plugin.type != default]
    return [default, *further]


def further_engines(manifest: PlatformManifest, named: Collection[str]) -> dict[str, str]:
    """Return the further engines that a product names, by their place in the merged manifest.

    Args:
        manifest: Merged.
        named: See `named_engines`.
    """
    default = plugin_types(manifest)["compute"]
    return {
        f"additional_compute[{position}]": plugin.type
        for position, plugin in enumerate(manifest.plugins.additional_compute or ())
        if plugin.type in named and plugin.type != default
    }


def named_engines(spec: ProductSpec) -> set[str]:
    """Return the engines that the product's transforms name."""
    return {transform.compute for transform in spec.transforms or () if transform.compute}


def enforcement_result(report: PolicyReport) -> EnforcementResult:
    """Return what the policies said, as the artifact holds it."""
    errors = sum(finding.severity == "error" for finding in report.findings)
    return EnforcementResult(
        passed=errors == 0,
        error_count=errors,
        warning_count=len(report.findings) - errors,
        policy_types_checked=report.policy_types_checked,
        models_validated=report.models_validated,
        enforcement_level=report.level,
        secrets_scanned="secrets" in report.policy_types_checked,
    )


def _version() -> str:
    try:
        return metadata.version("floe-dagster")
    except metadata.PackageNotFoundError:
        return "0.0.0"


def resolved_plugins(manifest: PlatformManifest, engines: Collection[str] = ()) -> ResolvedPlugins:
    """Return the plugins of a merged manifest as the artifact holds them, defaults filled in.

    Args:
        manifest: Merged.
        engines: What the product's transforms name; further engines that none of them names are left out.
    """
    types = plugin_types(manifest)

    def ref(category: str) -> PluginRef | None:
        plugin = getattr(manifest.plugins, category)
        if plugin is None:
            return PluginRef(type=types[category]) if category in types else None
        return held(plugin)

    def held(plugin: Any) -> PluginRef:
        config = plugin.config.model_dump(mode="json", exclude_none=True)
        return PluginRef(type=plugin.type, version=plugin.version, config=config or None)

    wanted = further_engines(manifest, engines).values()
    further = [held(plugin) for plugin in manifest.plugins.additional_compute or () if plugin.type in wanted]
    compute, orchestrator = ref("compute"), ref("orchestrator")
    assert compute is not None and orchestrator is not None
    return ResolvedPlugins(
        compute=compute,
        additional_compute=further or None,
        orchestrator=orchestrator,
        catalog=ref("catalog"),
        storage=ref("storage"),
        lineage_backend=ref("lineage_backend"),
    )


def _observability(manifest: PlatformManifest, spec: ProductSpec, mode: str) -> ObservabilityConfig:
    observability = manifest.observability
    backend = manifest.plugins.lineage_backend
    drain_seconds = backend.config.drain_timeout if backend else 10.0
    backend_url = backend.config.url if backend else None
    attributes = ResourceAttributes(
        service_name=spec.metadata.name,
        service_version=spec.metadata.version,
        floe_namespace=spec.slug,
        floe_product_name=spec.metadata.name,
        floe_product_version=spec.metadata.version,
        floe_mode=mode,
    )
    if observability is None:
        return ObservabilityConfig(
            telemetry=TelemetryConfig(resource_attributes=attributes, endpoint_is_default=True),
            lineage_namespace=spec.slug,
            lineage_endpoint=backend_url,
            lineage_drain_seconds=drain_seconds,
        )
    tracing, lineage, logging = observability.tracing, observability.lineage, observability.logging
    endpoint = tracing.endpoint or DEFAULT_OTLP_ENDPOINT
    is_http = endpoint.rstrip("/").endswith((":4318", "/v1/traces"))
    return ObservabilityConfig(
        telemetry=TelemetryConfig(
            enabled=tracing.enabled and tracing.exporter != "none",
            otlp_endpoint=endpoint,
            otlp_protocol=tracing.protocol or ("http" if is_http else "grpc"),
            sampling=SamplingConfig(**tracing.sampling.model_dump()),
            resource_attributes=attributes,
            authentication={"headers": _references(tracing.headers)} if tracing.headers else None,
            batch_processor=BatchProcessorConfig(**tracing.batch.model_dump()),
            logging=TelemetryLogging(log_level=logging.level, json_output=logging.format == "json"),
            backend=tracing.exporter,
            endpoint_is_default=tracing.endpoint is None,
            certificate_file=tracing.certificate_file,
            trace_url=tracing.trace_url,
        ),
        lineage=lineage.enabled,
        lineage_namespace=spec.slug,
        lineage_endpoint=lineage.endpoint or backend_url,
        lineage_drain_seconds=drain_seconds,
        lineage_transport=lineage.transport,
        lineage_file=lineage.file,
        lineage_api_key=lineage.api_key.model_dump(exclude_none=True) if lineage.api_key else None,
        lineage_certificate_file=lineage.certificate_file,
        dataset_url=lineage.dataset_url,
    )


def _references(headers: Mapping[str, SecretReference]) -> dict[str, Any]:
    return {name: reference.model_dump(exclude_none=True) for name, reference in headers.items()}


def _transforms(spec: ProductSpec, manifest: Mapping[str, Any], compute: str) -> ResolvedTransforms:
    project = manifest["metadata"]["project_name"]
    nodes = {
        unique_id: node
        for unique_id, node in manifest["nodes"].items()
        if node["resource_type"] == "model" and node["package_name"] == project
    }
    tests: dict[str, list[str]] = {}
    for node in manifest["nodes"].values():
        if node["resource_type"] == "test" and node.get("attached_node") in nodes:
            tests.setdefault(node["attached_node"], []).append(node["name"])
    named = {transform.name: transform for transform in spec.transforms or ()}
    tiers: dict[str, str] = {t.name: t.tier for t in named.values() if t.tier}
    models = []
    for unique_id, node in sorted(nodes.items(), key=lambda item: asset_name(item[1])):
        transform = named.get(named_by(node, named) or "")
        tags = sorted({*(transform.tags or () if transform else ()), *node["tags"]})
        upstream = sorted(asset_name(nodes[up]) for up in node["depends_on"]["nodes"] if up in nodes)
        models.append(
            ResolvedModel(
                name=asset_name(node),
                compute=(transform.compute if transform else None) or compute,
                tags=tags or None,
                depends_on=upstream or None,
                quality_checks=sorted(tests.get(unique_id, ())) or None,
                quality_tier=tier_of(node, tiers),
            )
        )
    return ResolvedTransforms(models=models, default_compute=compute)
