"""Another policy is one more module and its line in the registry, its setting in `governance` included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import MANIFEST
from tests.packages import floe, with_kind

POLICY = '''\
"""Short names: no model's name is longer than the platform wants."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy
from floe_dagster.schemas.base import Section
from floe_dagster.schemas.governed import Setting
from floe_dagster.schemas.merging import Stricter


class ShortNameRules(Section):
    """How long names may be."""

    longest: Annotated[int, Field(ge=1)] | None = Field(None, description="Characters at most.")


class ShortNames(Policy):
    """No model's name is longer than the platform wants."""

    name = "short_names"
    title = "Short names"
    description = "No model's name has more than `longest` characters."
    set_by = "`governance.short_names.longest`"
    setting = Setting(
        "short_names",
        ShortNameRules,
        "How long names may be.",
        {"longest": Stricter("the smaller number", lambda value: -value)},
    )

    def check(self, project: Project, setting: ShortNameRules | None) -> Iterator[Finding]:
        for node in project.models if setting and setting.longest else ():
            if len(node["name"]) > setting.longest:
                yield project.finding(node, f"{node['name']!r} is too long", "Find a shorter name.", "long-name")
'''


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with floe-dagster that has one module and one line more."""
    return with_kind(
        tmp_path / "package",
        "policies/short_names.py",
        POLICY,
        "policies/registry.py",
        ("Agreement(),", "Agreement(), ShortNames(),"),
        (
            "from floe_dagster.policies.tiers import",
            "from floe_dagster.policies.short_names import ShortNames\nfrom floe_dagster.policies.tiers import",
        ),
    )


def govern(shop: Path, platform: str, product: str) -> None:
    (shop.parent / "manifest.yaml").write_text(f"{MANIFEST}governance: {platform}\n")
    spec = (shop / "floe.yaml").read_text().partition("governance:")[0]
    (shop / "floe.yaml").write_text(f"{spec}governance: {product}\n")


@pytest.mark.slow
def test_it_looks_is_merged_explained_and_documented_like_the_others(package: Path, shop: Path) -> None:
    govern(
        shop, "{policy_enforcement_level: strict, short_names: {longest: 9}}", "{short_names: {longest: 5}}"
    )
    done = floe(package, shop, "validate", shop, "--format", "json")
    assert done.returncode == 1, done.stderr
    (finding,) = json.loads(done.stdout)[0]["findings"]
    assert (finding["policy"], finding["code"], finding["model"]) == ("short_names", "long-name", "orders")

    govern(
        shop, "{policy_enforcement_level: strict, short_names: {longest: 5}}", "{short_names: {longest: 9}}"
    )
    done = floe(package, shop, "explain", shop, "--format", "json")
    decided = {each["field"]: each for each in json.loads(done.stdout)[0]["governance"]["decisions"]}
    assert decided["short_names.longest"]["value"] == 5
    assert decided["short_names.longest"]["overruled"] == [["product shop", 9]]

    govern(shop, "{short_names: {longest: 0}}", "{short_name: {}}")
    done = floe(package, shop, "validate", "--documents", shop)
    assert done.returncode == 2
    assert "governance.short_names.longest" in done.stderr and "Did you mean 'short_names'?" in done.stderr
    table = floe(package, shop, "schema", "product", "--format", "markdown").stdout
    assert "| `governance.short_names.longest` | integer, 1… |" in table
