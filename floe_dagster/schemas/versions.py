"""Versions of the CompiledArtifacts document."""

from __future__ import annotations

COMPILED_ARTIFACTS_VERSION = "0.10.0"

VERSION_HISTORY: dict[str, str] = {
    "0.1.0": "First version: metadata, identity, mode, inheritance chain, observability.",
    "0.2.0": "plugins, transforms, dbt_profiles, governance.",
    "0.3.0": "enforcement_result.",
    "0.4.0": "quality_config; quality_checks and quality_tier of a model.",
    "0.5.0": "plugins.lineage_backend.",
    "0.6.0": "plugins.ingestion.",
    "0.7.0": "enforcement_result: rbac_principal, secrets_scanned.",
    "0.8.0": "observability: lineage_endpoint, lineage_transport.",
    "0.9.0": "observability: transport file, certificates, API key, links to traces and datasets.",
    "0.10.0": "environment.",
}
"""What each version added; every later version reads every earlier one of the same MAJOR."""
