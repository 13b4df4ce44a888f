"""What a platform lets products do that no rule can look into: `governance.allow`, in manifests alone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from floe_dagster.schemas.base import Section
from floe_dagster.schemas.governed import Setting
from floe_dagster.schemas.merging import FALSE, Common

WeakTest = Literal["where", "limit", "threshold", "severity", "empty", "disabled"]
"""Ways in which a test cannot fail, see `weak_tests`."""


class Allowed(Section):
    """What products may do; what is not stated is not allowed."""

    hooks: bool | None = Field(
        None,
        description="on-run-start, on-run-end, pre_hook and post_hook: SQL that runs beside the models, where no test looks.",
    )
    python_models: bool | None = Field(
        None, description="Models in Python, which run in the process of dbt with all that it may do."
    )
    packages: list[str] | None = Field(None, description="Names of the dbt packages that may be used.")
    macros: list[str] | None = Field(
        None,
        description="Names of dbt's own macros, tests and materializations that a project or a package may replace, such as "
        "materialization_table_default or test_unique.",
    )
    weak_tests: list[WeakTest] | None = Field(
        None,
        description="Tests that cannot fail and count all the same. where: a condition that no row meets. limit: 0. threshold: an "
        "error_if that 10,000 failing rows do not reach, or a fixed fail_calc. severity: warn as a model's only tests. empty: "
        "a query without rows. disabled: enabled: false.",
    )


ALLOW = Setting(
    "allow",
    Allowed,
    "What products may do beside SQL models and tests that can fail: hooks, Python models, packages, replaced macros.",
    {
        "hooks": FALSE,
        "python_models": FALSE,
        "packages": Common(),
        "macros": Common(),
        "weak_tests": Common(),
    },
    platform_alone=True,
)
