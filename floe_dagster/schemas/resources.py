"""Resource presets: Kubernetes quantities by name."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from floe_dagster.schemas.base import Section

_QUANTITY = re.compile(r"^(\d+(?:\.\d+)?|\.\d+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?$")
_FACTORS: dict[str | None, Decimal] = {
    None: Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def parse_quantity(text: str) -> Decimal:
    """Return the value of a Kubernetes quantity such as `500m` or `2Gi`.

    Raises:
        ValueError: It is none.
    """
    found = _QUANTITY.match(text)
    if not found:
        raise ValueError(f"{text!r} is no Kubernetes quantity; write for example 500m, 2 or 4Gi")
    number, suffix = found.groups()
    if suffix and suffix[0] in "eE" and len(suffix) > 1 and suffix not in _FACTORS:
        return Decimal(number) * Decimal(10) ** int(suffix[1:])
    return Decimal(number) * _FACTORS[suffix]


def _quantity(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a Kubernetes quantity such as 500m or 2Gi")
    text = str(value) if isinstance(value, int | float) else value
    if not isinstance(text, str):
        raise ValueError("must be a Kubernetes quantity such as 500m or 2Gi")
    parse_quantity(text)
    return text


Quantity = Annotated[str, BeforeValidator(_quantity)]


class ResourceAmounts(Section):
    """CPU and memory."""

    cpu: Quantity | None = Field(None, description="CPU, in cores or millicores, for example 500m.")
    memory: Quantity | None = Field(None, description="Memory, in bytes or with a unit, for example 2Gi.")


class ResourcePreset(Section):
    """What a run's pod asks for; one of two shapes: flat, or `requests` and `limits`."""

    cpu_request: Quantity | None = Field(None, description="CPU that is reserved, for example 500m.")
    cpu_limit: Quantity | None = Field(None, description="CPU that is not exceeded, for example 2.")
    memory_request: Quantity | None = Field(None, description="Memory that is reserved, for example 1Gi.")
    memory_limit: Quantity | None = Field(None, description="Memory that is not exceeded, for example 4Gi.")
    requests: ResourceAmounts | None = Field(None, description="What is reserved (second shape).")
    limits: ResourceAmounts | None = Field(None, description="What is not exceeded (second shape).")

    @model_validator(mode="after")
    def _one_shape_and_within_limits(self) -> ResourcePreset:
        flat = (self.cpu_request, self.cpu_limit, self.memory_request, self.memory_limit)
        nested = (self.requests, self.limits)
        if any(value is not None for value in flat) and any(value is not None for value in nested):
            raise ValueError(
                "uses both shapes; write either cpu_request, cpu_limit, memory_request, memory_limit or requests, limits"
            )
        for kind, request, limit in self.pairs():
            if request and limit and parse_quantity(request) > parse_quantity(limit):
                raise ValueError(f"{kind} request {request} is above its limit {limit}")
        return self

    def pairs(self) -> list[tuple[str, str | None, str | None]]:
        """Return (cpu or memory, request, limit) whichever shape was used."""
        if self.requests or self.limits:
            requests, limits = self.requests or ResourceAmounts(), self.limits or ResourceAmounts()
            return [("cpu", requests.cpu, limits.cpu), ("memory", requests.memory, limits.memory)]
        return [
            ("cpu", self.cpu_request, self.cpu_limit),
            ("memory", self.memory_request, self.memory_limit),
        ]

    def to_kubernetes(self) -> dict[str, dict[str, str]]:
        """Return the `resources` of a container: `requests` and `limits` as far as they are given."""
        resources: dict[str, dict[str, str]] = {}
        for kind, request, limit in self.pairs():
            if request:
                resources.setdefault("requests", {})[kind] = request
            if limit:
                resources.setdefault("limits", {})[kind] = limit
        return resources
