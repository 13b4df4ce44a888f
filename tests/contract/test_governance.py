"""Stricter wins, over any number of layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.governance import STRENGTH, GovernanceResolution, resolve_governance
from floe_dagster.compilation.inheritance import load_manifest_chain
from floe_dagster.compilation.validation import parse_product
from floe_dagster.findings import InputError


def resolve(folder: Path, *governance: str | None, product: str | None = None) -> GovernanceResolution:
    """Resolve a chain of manifests, outermost first, and a product."""
    (folder / "workspace.yaml").write_text("")
    for number, section in enumerate(governance):
        parent = f"scope: domain\nparent_manifest: m{number - 1}.yaml\n" if number else ""
        scope = "" if number or len(governance) == 1 else "scope: enterprise\n"
        (folder / f"m{number}.yaml").write_text(
            "apiVersion: floe.dev/v1\nkind: Manifest\n"
            f"metadata: {{name: layer-{number}, version: 1.0.0, owner: a}}\n{scope}{parent}"
            + (f"governance: {section}\n" if section else "")
        )
    (folder / "floe.yaml").write_text(
        "apiVersion: floe.dev/v1\nkind: FloeSpec\nmetadata: {name: shop, version: 1.0.0, owner: a}\n"
        + (f"governance: {product}\n" if product else "")
    )
    chain = load_manifest_chain(folder / f"m{len(governance) - 1}.yaml", root=folder)
    assert [f for f in chain.findings if f.severity == "error"] == []
    return resolve_governance(chain, parse_product(read_document(folder / "floe.yaml", root=folder)))


@pytest.mark.parametrize(
    ("manifest", "product", "level"),
    [
        ("warn", None, "warn"),
        ("warn", "strict", "strict"),
        ("strict", "warn", "strict"),
        (None, None, "warn"),
    ],
)
def test_level(tmp_path: Path, manifest: str | None, product: str | None, level: str) -> None:
    def section(value: str | None) -> str | None:
        return f"{{policy_enforcement_level: {value}}}" if value else None

    assert resolve(tmp_path, section(manifest), product=section(product)).effective_level == level


def test_no_governance_anywhere_is_none(tmp_path: Path) -> None:
    assert resolve(tmp_path, None).governance is None


def test_governance_without_a_level_keeps_the_other_fields(tmp_path: Path) -> None:
    resolution = resolve(tmp_path, "{audit_logging: enabled}")
    assert resolution.governance is not None
    assert resolution.governance.policy_enforcement_level is None
    assert resolution.governance.audit_logging == "enabled"
    assert resolution.effective_level == "warn"


def test_who_decided_and_who_was_overruled(tmp_path: Path) -> None:
    resolution = resolve(
        tmp_path, "{data_retention_days: 30}", "{data_retention_days: 7}", product="{data_retention_days: 14}"
    )
    (decision,) = resolution.decisions
    assert (decision.value, decision.decided_by, decision.file, decision.line) == (
        30,
        "manifest layer-0",
        "m0.yaml",
        5,
    )
    assert decision.overruled == (("manifest layer-1", 7), ("product shop", 14))
    assert [f.severity for f in resolution.findings] == ["warning", "warning"]


def test_weakening_is_an_error_under_strict(tmp_path: Path) -> None:
    resolution = resolve(
        tmp_path,
        "{policy_enforcement_level: strict, pii_encryption: required}",
        product="{pii_encryption: optional}",
    )
    (finding,) = resolution.findings
    assert finding.severity == "error" and finding.field == "governance.pii_encryption"


def test_the_nearest_layer_decides_the_life_of_data(tmp_path: Path) -> None:
    resolution = resolve(
        tmp_path, "{snapshot_keep_last: 30, default_ttl_hours: 9}", product="{snapshot_keep_last: 2}"
    )
    assert resolution.governance is not None
    assert resolution.governance.snapshot_keep_last == 2
    assert resolution.governance.default_ttl_hours == 9
    assert resolution.findings == []


def test_a_manifest_that_inherits_from_itself(tmp_path: Path) -> None:
    (tmp_path / "workspace.yaml").write_text("")
    (tmp_path / "a.yaml").write_text(
        "apiVersion: floe.dev/v1\nkind: Manifest\nmetadata: {name: aa, version: 1.0.0, owner: a}\n"
        "scope: domain\nparent_manifest: a.yaml\n"
    )
    chain = load_manifest_chain(tmp_path / "a.yaml", root=tmp_path)
    assert [f.code for f in chain.findings] == ["manifest-cycle"]
    assert chain.findings[0].line == 5


def test_a_missing_parent_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "apiVersion: floe.dev/v1\nkind: Manifest\nmetadata: {name: aa, version: 1.0.0, owner: a}\n"
        "scope: domain\nparent_manifest: b.yaml\n"
    )
    chain = load_manifest_chain(tmp_path / "a.yaml", root=tmp_path)
    assert [f.code for f in chain.findings] == ["file-not-found", "parent-unreadable"]
    with pytest.raises(InputError):
        load_manifest_chain(tmp_path / "none.yaml", root=tmp_path)


LEVELS = ["off", "warn", "strict"]


@settings(max_examples=40, deadline=None)
@given(levels=st.lists(st.sampled_from([None, *LEVELS]), min_size=2, max_size=4), days=st.integers(1, 100))
def test_no_layer_ends_weaker_than_it_asked(
    tmp_path_factory: pytest.TempPathFactory, levels: list[str | None], days: int
) -> None:
    *layers, product = [
        f"{{policy_enforcement_level: {level}, data_retention_days: {days + n}}}" if level else None
        for n, level in enumerate(levels)
    ]
    resolution = resolve(tmp_path_factory.mktemp("chain"), *layers, product=product)
    stated = [level for level in levels if level]
    if not stated:
        assert resolution.governance is None
        return
    assert resolution.governance is not None
    strength = STRENGTH["policy_enforcement_level"]
    assert all(strength(resolution.effective_level) >= strength(level) for level in stated)
    assert resolution.governance.data_retention_days == max(
        days + n for n, level in enumerate(levels) if level
    )
