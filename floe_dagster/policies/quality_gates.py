"""Quality gates: what a product must reach before it is compiled."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from floe_dagster.findings import Finding
from floe_dagster.policies.allowed import ALLOW
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy
from floe_dagster.policies.weak_tests import coverage
from floe_dagster.policies.words import says_something
from floe_dagster.schemas.base import Percent, Section
from floe_dagster.schemas.governed import Setting
from floe_dagster.schemas.merging import GREATER, TRUE


class QualityGates(Section):
    """What a product must reach."""

    minimum_test_coverage: Percent | None = Field(
        None, description="Percent of models with at least one data test, 0 to 100."
    )
    require_descriptions: bool | None = Field(None, description="Every model and column has a description.")
    block_on_failure: bool | None = Field(
        None, description="A missed gate blocks, whatever the general level."
    )


_GATES = Setting(
    "quality_gates",
    QualityGates,
    "What a product must reach.",
    {"minimum_test_coverage": GREATER, "require_descriptions": TRUE, "block_on_failure": TRUE},
)


class _Gate(Policy):
    setting = _GATES

    def level(self, general: str, setting: QualityGates | None) -> str:
        """Return `strict` where a missed gate blocks."""
        return "strict" if setting is not None and setting.block_on_failure else general


class Documentation(_Gate):
    """Models and their columns are described."""

    name = "documentation"
    title = "Documentation"
    description = "With `require_descriptions`, every model and every listed column has a description in words: `x`, `todo` or `.` is none."
    set_by = "`governance.quality_gates.require_descriptions`"
    looks_at = ("model", "snapshot", "seed", "package")

    def check(self, project: Project, setting: QualityGates | None) -> Iterator[Finding]:
        """Models and their columns are described, where `require_descriptions` asks for it."""
        if setting is None or not setting.require_descriptions:
            return
        for node in (*project.models, *project.seeds):
            if not says_something(node.get("description")):
                yield project.finding(
                    node,
                    f"{node['resource_type']} {node['name']!r} has no description",
                    "Add `description:`, in words.",
                    "model-description",
                )
            for column in node["columns"].values():
                if not says_something(column.get("description")):
                    yield project.finding(
                        node,
                        f"column {column['name']!r} of {node['name']!r} has no description",
                        "Add `description:`, in words.",
                        "column-description",
                        column=column["name"],
                    )


class TestCoverage(_Gate):
    """Enough models have a data test."""

    __test__ = False  # pytest must not collect it
    name = "test_coverage"
    title = "Test coverage"
    description = (
        "At least `minimum_test_coverage` percent of the models have a data test that can fail, or more."
    )
    set_by = "`governance.quality_gates.minimum_test_coverage`"
    looks_at = ("model", "snapshot", "test", "macro", "package")
    further_settings = (ALLOW,)

    def check(self, project: Project, setting: QualityGates | None) -> Iterator[Finding]:
        """Enough models have a data test."""
        if setting is None or setting.minimum_test_coverage is None or not project.models:
            return
        counted = coverage(project)
        untested = [node for node in project.models if not counted.get(node["unique_id"])]
        percent = 100 * (1 - len(untested) / len(project.models))
        if percent >= setting.minimum_test_coverage:
            return
        for node in untested:
            yield project.finding(
                node,
                f"model {node['name']!r} has no data test that can fail; coverage of the product is {percent:.0f} %, "
                f"{setting.minimum_test_coverage:g} % is asked for",
                "Add `data_tests:`, for example unique and not_null on its key.",
                "test-coverage",
            )
