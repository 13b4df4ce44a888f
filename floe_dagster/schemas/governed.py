"""Settings of policies in `governance`: what may stand there, which layer decides, and how both documents get them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Any

from pydantic import BaseModel, Field, create_model

from floe_dagster.schemas.late_models import LateModels
from floe_dagster.schemas.merging import MergeRule


@dataclass(frozen=True, slots=True)
class Setting:
    """A field of `governance` that a policy goes by.

    Args:
        name: Of the field.
        type: What may stand there: a `Section`, or what a single value may be.
        description: Of the field, for the JSON Schema and the table of fields.
        merge: The rule by which the layers' values become one; of a section, by the names of its fields.
        platform_alone: Only manifests may state it, and no product: what it says allows something.
    """

    name: str
    type: Any
    description: str
    merge: MergeRule | Mapping[str, MergeRule]
    platform_alone: bool = False

    @property
    def rules(self) -> dict[str, MergeRule]:
        """The rule of each field, by its dotted name below `governance`."""
        if isinstance(self.merge, Mapping):
            return {f"{self.name}.{field}": rule for field, rule in self.merge.items()}
        return {self.name: self.merge}

    def value(self, merged: Mapping[str, Any]) -> Any:
        """Return what is in force, as the policy gets it; None where no layer says anything.

        Args:
            merged: Values by dotted name.
        """
        if not isinstance(self.merge, Mapping):
            return merged.get(self.name)
        stated = {
            field: merged[f"{self.name}.{field}"] for field in self.merge if f"{self.name}.{field}" in merged
        }
        return self.type(**stated) if stated else None


@cache
def with_settings(model: type[BaseModel]) -> type[BaseModel]:
    """Return a model of `governance` with the settings of all policies.

    Args:
        model: With the fields that belong to no policy.
    """
    # By name, and when the first document is read: policies are built on this package, not it on them.
    settings = resolve_name("floe_dagster.policies:policy_settings")()
    fields: dict[str, Any] = {
        setting.name: (setting.type | None, Field(None, description=setting.description))
        for setting in settings
        if not setting.platform_alone or getattr(model, "is_the_platforms", False)
    }
    return create_model(model.__name__, __base__=model, __doc__=model.__doc__, **fields)


class WithPolicySettings(LateModels):
    """Marks a field whose model gets the settings of all policies besides its own fields."""

    def annotation(self, source: type[BaseModel]) -> type[BaseModel]:
        """Return the model with the settings."""
        return with_settings(source)
