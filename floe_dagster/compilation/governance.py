"""Governance over all layers: each field by its rule (see `merge_rules`), and it is known who decided.

Layers are the manifests of the chain and the product spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from floe_dagster.compilation.inheritance import ManifestChain
from floe_dagster.compilation.merge_rules import governance_rules
from floe_dagster.compilation.validation import Parsed
from floe_dagster.findings import Finding
from floe_dagster.policies import policy_settings
from floe_dagster.schemas.artifacts import ResolvedGovernance
from floe_dagster.schemas.manifest import Exemption, GovernanceFields
from floe_dagster.schemas.product import ProductSpec
from floe_dagster.schemas.product_index import Lifecycle

DEFAULT_LEVEL = "warn"


@dataclass(frozen=True, slots=True)
class GovernanceDecision:
    """Who decided one field.

    Args:
        field: Dotted name, for example `naming.pattern`.
        value: The value in force; None where a layer decided that there is none.
        rule: stricter, outermost, common or nearest; see `merge_rules`.
        decided_by: Name of the layer.
        file: Document of the layer, for display.
        line: Line of the value in it.
        overruled: Layers that wanted something else, and what.
    """

    field: str
    value: Any
    rule: str
    decided_by: str
    file: str
    line: int
    overruled: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class GovernanceResolution:
    """Governance in force for one product.

    Args:
        governance: The section of the artifact; None where no layer has one.
        effective_level: The enforcement level, `warn` where no layer names one.
        settings: Of the policies, merged, by field of `governance`; those that no layer states are left out.
        schema_evolution: Merged; None where no layer names one.
        stale_table_recovery_mode: Merged; None where no layer names one.
        environment: Names of the environment variables that the platform lets a product read.
        exemptions: What single policies do not ask of single models, of every product.
        decisions: Who decided each field.
        findings: Layers that tried to weaken a rule.
    """

    governance: ResolvedGovernance | None
    effective_level: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    schema_evolution: str | None = None
    stale_table_recovery_mode: str | None = None
    environment: tuple[str, ...] = ()
    exemptions: tuple[PlacedExemption, ...] = ()
    decisions: tuple[GovernanceDecision, ...] = ()
    findings: list[Finding] = field(default_factory=list)

    def lifecycle(self) -> Lifecycle:
        """Return what governs the life of tables."""
        resolved = self.governance
        return Lifecycle(
            schema_evolution=self.schema_evolution,
            stale_table_recovery_mode=self.stale_table_recovery_mode,
            data_retention_days=resolved.data_retention_days if resolved else None,
            default_ttl_hours=resolved.default_ttl_hours if resolved else None,
            snapshot_keep_last=resolved.snapshot_keep_last if resolved else None,
        )


@dataclass(frozen=True, slots=True)
class PlacedExemption:
    """An exemption, and where it stands.

    Args:
        exemption: As the manifest states it.
        layer: Name of the layer.
        file: Document of the layer, for display.
        line: Of the entry.
    """

    exemption: Exemption
    layer: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class _Layer:
    name: str
    parsed: Parsed[Any]
    values: dict[str, Any]


def resolve_governance(chain: ManifestChain, spec: Parsed[ProductSpec]) -> GovernanceResolution:
    """Merge the governance of a manifest chain and a product spec.

    Args:
        chain: The manifests, nearest first.
        spec: The product spec; it may only strengthen.
    """
    layers = [
        _Layer(f"manifest {layer.value.metadata.name}", layer, _flat(layer.value.governance))
        for layer in reversed(chain.layers)
        if layer.value is not None and layer.value.governance is not None
    ]
    if spec.value is not None and spec.value.governance is not None:
        layers.append(_Layer(f"product {spec.value.metadata.name}", spec, _flat(spec.value.governance)))
    if not layers:
        return GovernanceResolution(None, DEFAULT_LEVEL)

    stated = [layer.values for layer in layers]
    decisions: dict[str, GovernanceDecision] = {}
    values: dict[str, Any] = {}
    weakened: list[tuple[_Layer, GovernanceDecision]] = []
    for name, rule in governance_rules().items():
        decided = rule.decide(name, stated)
        if decided is None:
            continue
        position, value = decided
        values[name] = value
        winner = layers[position]
        stating = [layer for layer in layers if name in layer.values]
        decision = decisions[name] = GovernanceDecision(
            field=name,
            value=_plain(value),
            rule=rule.name,
            decided_by=winner.name,
            file=winner.parsed.document.display,
            line=_line(winner, name),
            overruled=tuple(
                (layer.name, _plain(layer.values[name]))
                for layer in stating
                if layer is not winner and layer.values[name] != value and rule.name != "all"
            ),
        )
        weakened += [
            (layer, decision)
            for number, layer in enumerate(layers)
            if name in layer.values and rule.weakens(name, number, stated)
        ]

    level = values.get("policy_enforcement_level") or DEFAULT_LEVEL
    return GovernanceResolution(
        governance=ResolvedGovernance(**{name: values.get(name) for name in ResolvedGovernance.model_fields}),
        effective_level=level,
        settings={
            setting.name: value
            for setting in policy_settings()
            if (value := setting.value(values)) is not None
        },
        schema_evolution=values.get("schema_evolution"),
        stale_table_recovery_mode=values.get("stale_table_recovery_mode"),
        environment=tuple(values.get("environment") or ()),
        exemptions=tuple(_placed_exemptions(layers)),
        decisions=tuple(decisions.values()),
        findings=[_weakening(layer, decision, level) for layer, decision in weakened],
    )


def _placed_exemptions(layers: list[_Layer]) -> Iterator[PlacedExemption]:
    seen: list[Exemption] = []
    for layer in layers:
        document = layer.parsed.document
        for number, exemption in enumerate(layer.values.get("exemptions") or ()):
            if exemption not in seen:
                seen.append(exemption)
                line, _column = document.position(("governance", "exemptions", number))
                yield PlacedExemption(exemption, layer.name, document.display, line)


def _plain(value: Any) -> Any:
    """Return a value as reports have it: of models, what they hold."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _flat(governance: GovernanceFields) -> dict[str, Any]:
    """Return what a layer states, by dotted field."""
    flat: dict[str, Any] = {}
    for name in type(governance).model_fields:
        value = getattr(governance, name)
        if isinstance(value, BaseModel):
            flat |= {f"{name}.{inner}": getattr(value, inner) for inner in type(value).model_fields}
        else:
            flat[name] = value
    return {name: value for name, value in flat.items() if value is not None}


def _line(layer: _Layer, name: str) -> int:
    return layer.parsed.document.position(("governance", *name.split(".")))[0]


def _weakening(layer: _Layer, decision: GovernanceDecision, level: str) -> Finding:
    document, name = layer.parsed.document, decision.field
    line, column = document.position(("governance", *name.split(".")))
    replaces = decision.rule == "outermost"
    in_force = "nothing" if decision.value is None else str(decision.value)
    return Finding(
        code="weakened-governance",
        severity="error" if level == "strict" else "warning",
        kind="policy",
        message=f"{layer.name} tries to {'replace' if replaces else 'weaken'} {name}; {decision.decided_by} stays in force",
        file=document.display,
        line=line,
        column=column,
        field=f"governance.{name}",
        found=str(layer.values[name]),
        allowed=f"{in_force} ({decision.file}:{decision.line}){'' if replaces else ' or stricter'}",
        fix="Remove the line: here the outermost layer decides."
        if replaces
        else "Remove the line, or state a stricter value.",
    )
