"""Governance over all layers: each field by its rule (see `merge_rules`), and it is known who decided.

Layers are the manifests of the chain and the product spec.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from pydantic import BaseModel

from floe_dagster.compilation.inheritance import ManifestChain
from floe_dagster.compilation.merge_rules import BOUNDED, governance_rules
from floe_dagster.compilation.validation import Parsed
from floe_dagster.findings import Finding
from floe_dagster.policies import policy_settings
from floe_dagster.schemas.artifacts import ResolvedGovernance
from floe_dagster.schemas.manifest import Exemption
from floe_dagster.schemas.product import ProductSpec
from floe_dagster.schemas.product_index import Lifecycle

DEFAULT_LEVEL = "warn"


@dataclass(frozen=True, slots=True)
class GovernanceDecision:
    """Who decided one field.

    Args:
        field: Dotted name, for example `naming.pattern`.
        value: The value in force; None where a layer decided that there is none.
        rule: stricter, outermost, common, every or nearest, see `merge_rules`; bounds where those of a layer decided.
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
        table_properties: By layer that has a list: the table properties that products may set besides the harmless ones.
        findings: Layers that tried to weaken a rule, and products that may not use a manifest.
    """

    governance: ResolvedGovernance | None
    effective_level: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    schema_evolution: str | None = None
    stale_table_recovery_mode: str | None = None
    environment: tuple[str, ...] = ()
    exemptions: tuple[PlacedExemption, ...] = ()
    decisions: tuple[GovernanceDecision, ...] = ()
    table_properties: tuple[tuple[str, ...], ...] = ()
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
                if layer is not winner and layer.values[name] != value and rule.name not in ("every", "all")
            ),
        )
        weakened += [
            (layer, decision)
            for number, layer in enumerate(layers)
            if name in layer.values and rule.weakens(name, number, stated)
        ]

    beyond: list[tuple[_Layer, str, GovernanceDecision]] = []
    for name in BOUNDED:
        beyond += _keep_bounds(name, layers, decisions)
    values = {name: decision.value for name, decision in decisions.items()}
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
        table_properties=tuple(
            tuple(layer.values["table_properties"]) for layer in layers if "table_properties" in layer.values
        ),
        findings=[
            *(_weakening(layer, decision, level) for layer, decision in weakened),
            *(_out_of_bounds(layer, name, bound, level) for layer, name, bound in beyond),
            *_not_allowed(layers, spec),
        ],
    )


def _keep_bounds(
    name: str, layers: list[_Layer], decisions: dict[str, GovernanceDecision]
) -> Iterator[tuple[_Layer, str, GovernanceDecision]]:
    """Bring one value into its bounds; yield each layer whose own value lies beyond a bound of its own or of an outer layer."""
    sides = {"min": int.__lt__, "max": int.__gt__}
    bounds = {side: found for side in sides if (found := decisions.get(f"bounds.{name}.{side}"))}
    # Where a layer's minimum is greater than an outer layer's maximum, the outer one has the last word.
    for side, bound in sorted(bounds.items(), key=lambda each: -_position(layers, each[1])):
        decision, is_beyond = decisions.get(name), sides[side]
        if decision is None:
            continue
        setter = _position(layers, bound)
        for layer in layers[setter:]:
            if name in layer.values and is_beyond(layer.values[name], bound.value):
                yield layer, name, bound
        if is_beyond(decision.value, bound.value):
            overruled = tuple(
                (layer.name, layer.values[name])
                for layer in layers
                if name in layer.values and layer.values[name] != bound.value
            )
            decisions[name] = replace(bound, field=name, rule="bounds", overruled=overruled)


def _position(layers: list[_Layer], decision: GovernanceDecision) -> int:
    return next(
        number for number, layer in enumerate(layers) if layer.parsed.document.display == decision.file
    )


def _out_of_bounds(layer: _Layer, name: str, bound: GovernanceDecision, level: str) -> Finding:
    side = "at least" if bound.field.endswith(".min") else "at most"
    return _not_in_force(
        layer,
        name,
        level,
        code="out-of-bounds",
        message=f"{name} of {layer.name} is out of the bounds of {bound.decided_by}; {bound.value} is in force",
        allowed=f"{side} {bound.value} ({bound.file}:{bound.line})",
        fix="State a number within the bounds, or remove the line.",
    )


def _not_allowed(layers: list[_Layer], spec: Parsed[ProductSpec]) -> Iterator[Finding]:
    """Yield a finding for each manifest that does not list the product among those that may use it."""
    name = spec.value.metadata.name if spec.value is not None else None
    for layer in layers:
        listed = layer.values.get("products")
        if name is None or listed is None or any(fnmatchcase(name, pattern) for pattern in listed):
            continue
        line, column = spec.document.position(("metadata", "name"))
        place = f"{layer.parsed.document.display}:{_line(layer, 'products')}"
        yield Finding(
            code="product-not-allowed",
            severity="error",
            message=f"{layer.name} does not list the product {name!r} among those that may use it",
            file=spec.document.display,
            line=line,
            column=column,
            field="metadata.name",
            found=name,
            allowed=f"{', '.join(listed) or 'no product'} ({place})",
            fix=f"Ask who answers for {layer.name} to add it to governance.products, or name another manifest.",
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


def _flat(governance: BaseModel) -> dict[str, Any]:
    """Return what a section states, by dotted field."""
    flat: dict[str, Any] = {}
    for name in type(governance).model_fields:
        value = getattr(governance, name)
        if isinstance(value, BaseModel):
            flat |= {f"{name}.{inner}": stated for inner, stated in _flat(value).items()}
        elif value is not None:
            flat[name] = value
    return flat


def _line(layer: _Layer, name: str) -> int:
    return layer.parsed.document.position(("governance", *name.split(".")))[0]


def _weakening(layer: _Layer, decision: GovernanceDecision, level: str) -> Finding:
    replaces = decision.rule == "outermost"
    in_force = "nothing" if decision.value is None else str(decision.value)
    return _not_in_force(
        layer,
        decision.field,
        level,
        code="weakened-governance",
        message=f"{layer.name} tries to {'replace' if replaces else 'weaken'} {decision.field}; {decision.decided_by} stays in "
        "force",
        allowed=f"{in_force} ({decision.file}:{decision.line}){'' if replaces else ' or stricter'}",
        fix="Remove the line: here the outermost layer decides."
        if replaces
        else "Remove the line, or state a stricter value.",
    )


def _not_in_force(layer: _Layer, name: str, level: str, **said: str) -> Finding:
    """Return what is said of a value that a layer states and that does not count."""
    document = layer.parsed.document
    line, column = document.position(("governance", *name.split(".")))
    return Finding(
        severity="error" if level == "strict" else "warning",
        kind="policy",
        file=document.display,
        line=line,
        column=column,
        field=f"governance.{name}",
        found=str(layer.values[name]),
        **said,
    )
