"""Naming: models are called as the naming rules say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from floe_dagster.findings import Finding
from floe_dagster.policies.asset_names import follows
from floe_dagster.policies.model import LEVELS, Project
from floe_dagster.policies.policy import Policy
from floe_dagster.schemas.base import EnforcementLevel, Regex, Section
from floe_dagster.schemas.governed import Setting
from floe_dagster.schemas.merging import LEVEL, Outermost
from floe_dagster.schemas.patterns import compiled

NAMING_PATTERNS: Mapping[str, str] = {
    "medallion": r"^(bronze|silver|gold)_[a-z][a-z0-9_]*$",
    "kimball": r"^(stg|int|dim|fct|fact|bridge|agg|mart|snap)_[a-z][a-z0-9_]*$",
}


class NamingRules(Section):
    """How models must be called."""

    enforcement: EnforcementLevel | None = Field(
        None, description="Level of the naming policy; it can strengthen the general level, not weaken it."
    )
    pattern: Literal["medallion", "kimball", "custom"] | None = Field(
        None, description="medallion: bronze_, silver_, gold_. kimball: stg_, int_, dim_, fct_, mart_ …"
    )
    custom_patterns: list[Regex] | None = Field(
        None,
        description="Regular expressions (RE2), one of which a model's whole name must match (pattern: custom).",
    )


def _named(stated: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a layer's naming with its pattern, which is `custom` where it states patterns alone; an empty list is none."""
    if not stated.get("naming.custom_patterns"):
        return {name: value for name, value in stated.items() if name != "naming.custom_patterns"}
    return {"naming.pattern": "custom", **stated}


_NAMES = Outermost(("naming.pattern", "naming.custom_patterns"), _named)


class Naming(Policy):
    """Models are called as the naming rules say."""

    name = "naming"
    title = "Naming"
    description = (
        "Models match the naming rules: medallion (`bronze_`, `silver_`, `gold_`), kimball (`stg_`, `int_`, "
        "`dim_`, `fct_`, `fact_`, `bridge_`, `agg_`, `mart_`, `snap_`) or one of the custom patterns."
    )
    set_by = "`governance.naming.pattern`, `custom_patterns`, `enforcement`"
    setting = Setting(
        "naming",
        NamingRules,
        "How models must be called.",
        {"enforcement": LEVEL, "pattern": _NAMES, "custom_patterns": _NAMES},
    )

    def check(self, project: Project, setting: NamingRules | None) -> Iterator[Finding]:
        """Models are called as the naming rules say."""
        if setting is None or (setting.pattern is None and not setting.custom_patterns):
            return
        name = setting.pattern or "custom"
        patterns = [NAMING_PATTERNS[name]] if name in NAMING_PATTERNS else list(setting.custom_patterns or ())
        matchers = [compiled(pattern) for pattern in patterns]
        for node in project.models:
            if not any(follows(node, pattern) for pattern in matchers):
                yield project.finding(
                    node,
                    f"model {node['name']!r} does not follow the {name} naming",
                    f"Rename it so that it matches {' or '.join(patterns)}."
                    if patterns
                    else "Have custom_patterns added beside `pattern: custom`: without them no name is allowed.",
                    "model-name",
                )

    def level(self, general: str, setting: NamingRules | None) -> str:
        """Return the stricter of both levels."""
        if setting is None or not setting.enforcement:
            return general
        return max(general, setting.enforcement, key=LEVELS.index)
