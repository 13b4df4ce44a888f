"""Quality gates: what a product must reach before it is compiled."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy
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
    description = "With `require_descriptions`, every model and every listed column has a description."
    set_by = "`governance.quality_gates.require_descriptions`"

    def check(self, project: Project, setting: QualityGates | None) -> Iterator[Finding]:
        """Models and their columns are described, where `require_descriptions` asks for it."""
        if setting is None or not setting.require_descriptions:
            return
        for node in project.models:
            if not (node.get("description") or "").strip():
                yield project.finding(
                    node,
                    f"model {node['name']!r} has no description",
                    "Add `description:`.",
                    "model-description",
                )
            for column in node["columns"].values():
                if not (column.get("description") or "").strip():
                    yield project.finding(
                        node,
                        f"column {column['name']!r} of {node['name']!r} has no description",
                        "Add `description:`.",
                        "column-description",
                        column=column["name"],
                    )


class TestCoverage(_Gate):
    """Enough models have a data test."""

    __test__ = False  # pytest must not collect it
    name = "test_coverage"
    title = "Test coverage"
    description = "At least `minimum_test_coverage` percent of the models have one data test or more."
    set_by = "`governance.quality_gates.minimum_test_coverage`"

    def check(self, project: Project, setting: QualityGates | None) -> Iterator[Finding]:
        """Enough models have a data test."""
        if setting is None or setting.minimum_test_coverage is None or not project.models:
            return
        untested = [node for node in project.models if not project.tests.get(node["unique_id"])]
        coverage = 100 * (1 - len(untested) / len(project.models))
        if coverage >= setting.minimum_test_coverage:
            return
        for node in untested:
            yield project.finding(
                node,
                f"model {node['name']!r} has no data test; coverage of the product is {coverage:.0f} %, "
                f"{setting.minimum_test_coverage:g} % is asked for",
                "Add `data_tests:`, for example unique and not_null on its key.",
                "test-coverage",
            )
