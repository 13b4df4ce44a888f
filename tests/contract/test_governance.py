"""Each governed field is merged by its rule, over any number of layers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from floe_dagster.compilation.documents import read_document
from floe_dagster.compilation.governance import GovernanceResolution, resolve_governance
from floe_dagster.compilation.inheritance import load_manifest_chain
from floe_dagster.compilation.merge_rules import governance_rules
from floe_dagster.compilation.validation import parse_product
from floe_dagster.findings import InputError
from floe_dagster.policies import PolicyContext
from floe_dagster.policies.model import Project
from floe_dagster.policies.naming import Naming, NamingRules
from floe_dagster.policies.places import DescriptionPlaces
from floe_dagster.schemas.governed import with_settings
from floe_dagster.schemas.manifest import GovernanceFields, ManifestGovernance
from floe_dagster.schemas.product import ProductGovernance

GOVERNANCE_RULES = governance_rules()
RULE_NAMES = ("stricter", "outermost", "common", "every", "all", "nearest")


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


@pytest.mark.parametrize(
    ("lists", "common", "decided_by", "weakening"),
    [
        (["[A, B]"], ["A", "B"], 0, []),
        (["[A, B]", "[B]"], ["B"], 1, []),
        (["[A]", "[B, A]"], ["A"], 0, [1]),
        (["[A, B]", None, "[C, B]", "[B, A]"], ["B"], 2, [2, 3]),
        (["[]", "[A]"], [], 0, [1]),
        (["[A]", "[]"], [], 1, []),
    ],
)
def test_a_layer_takes_away_from_what_outer_ones_allow_and_adds_nothing(
    tmp_path: Path, lists: list[str | None], common: list[str], decided_by: int, weakening: list[int]
) -> None:
    resolution = resolve(tmp_path, *(f"{{environment: {names}}}" if names else None for names in lists))
    (decision,) = resolution.decisions
    assert (decision.value, decision.decided_by) == (common, f"manifest layer-{decided_by}")
    assert list(resolution.environment) == common
    assert [finding.file for finding in resolution.findings] == [f"m{number}.yaml" for number in weakening]


EXEMPTION = "{policy: naming, model: %s, reason: it is old, owner: platform, until: 2999-01-01}"


def test_what_layers_list_together_holds_and_each_entry_counts_once(tmp_path: Path) -> None:
    one, two = EXEMPTION % "a", EXEMPTION % "b"
    resolution = resolve(
        tmp_path,
        f"{{exemptions: [{one}], personal_data: {{names: [loyalty number]}}}}",
        f"{{exemptions: [{two}, {one}], personal_data: {{names: [nickname, loyalty number]}}}}",
    )
    assert [each.exemption.model for each in resolution.exemptions] == ["a", "b"]
    assert [each.file for each in resolution.exemptions] == ["m0.yaml", "m1.yaml"]
    assert resolution.settings["personal_data"].names == ["loyalty number", "nickname"]
    assert resolution.findings == []


@pytest.mark.parametrize("field", ["hooks", "python_models"])
def test_a_domain_cannot_allow_what_the_enterprise_forbids(tmp_path: Path, field: str) -> None:
    resolution = resolve(tmp_path, f"{{allow: {{{field}: false}}}}", f"{{allow: {{{field}: true}}}}")
    assert getattr(resolution.settings["allow"], field) is False
    assert [finding.field for finding in resolution.findings] == [f"governance.allow.{field}"]


@pytest.mark.parametrize(
    "section", ["allow: {hooks: true}", f"exemptions: [{EXEMPTION % 'a'}]", "secrets: {names: [a]}"]
)
def test_a_product_allows_itself_nothing(tmp_path: Path, section: str) -> None:
    resolve(tmp_path, None)
    (tmp_path / "floe.yaml").write_text(
        "apiVersion: floe.dev/v1\nkind: FloeSpec\nmetadata: {name: shop, version: 1.0.0, owner: a}\n"
        f"governance: {{{section}}}\n"
    )
    (finding,) = parse_product(read_document(tmp_path / "floe.yaml", root=tmp_path)).findings
    assert (finding.severity, finding.line) == ("error", 4)
    assert "platform" in finding.message and "manifest" in str(finding.fix)


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
    (finding,) = chain.findings
    assert (finding.code, finding.file, finding.line) == ("file-not-found", "a.yaml", 5)
    assert "parent_manifest in a.yaml names it" in finding.message
    with pytest.raises(InputError):
        load_manifest_chain(tmp_path / "none.yaml", root=tmp_path)


def governed(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Return the fields of a section and of the sections in it, by dotted name."""
    fields: dict[str, FieldInfo] = {}
    for name, info in model.model_fields.items():
        inner = next((each for each in get_args(info.annotation) if is_section(each)), None)
        fields |= governed(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}": info}
    return fields


def is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


STRICTEST_FIRST: dict[str, list[Any]] = {
    "policy_enforcement_level": ["strict", "warn", "off"],
    "audit_logging": ["enabled", "disabled"],
    "pii_encryption": ["required", "optional"],
    "stale_table_recovery_mode": ["strict", "repair"],
    "schema_evolution": ["refuse", "additive", "allow"],
    "naming.enforcement": ["strict", "warn", "off"],
    "quality_gates.require_descriptions": [True, False],
    "quality_gates.block_on_failure": [True, False],
}
"""What the documentation calls stricter, written once more: the table that is tested is not asked."""
GREATER_IS_STRICTER = {"data_retention_days", "quality_gates.minimum_test_coverage"}
LIFE_OF_DATA = {"default_ttl_hours", "snapshot_keep_last"}
COMMON = {
    "environment",
    "allow.packages",
    "allow.macros",
    "allow.weak_tests",
    "personal_data.classifications",
}
EVERY = {"products", "table_properties"}
BOUNDS = {
    f"bounds.{field}.{side}" for field in (*LIFE_OF_DATA, "data_retention_days") for side in ("min", "max")
}
TOGETHER = {"exemptions", "personal_data.names", "secrets.names", "secrets.patterns"}
FALSE_IS_STRICTER = {"allow.hooks", "allow.python_models"}
PLATFORM_ALONE = COMMON | EVERY | BOUNDS | TOGETHER | FALSE_IS_STRICTER
NAMES = {"naming.pattern", "naming.custom_patterns"}
POOL = ["stg_a", "mart_b", "gold_c", "silver_d", "raw_e", "whatever_I_like"]


def weakness(field: str, value: Any) -> float:
    """Return how weak a value is; the greater the weaker."""
    return -value if field in GREATER_IS_STRICTER else STRICTEST_FIRST[field].index(value)


def values_of(field: str, info: FieldInfo) -> st.SearchStrategy[Any]:
    """Return a strategy for what a document may state, from the field's own type; it fails for a type that is new here."""
    (annotation,) = [each for each in get_args(info.annotation) if each is not type(None)]
    bounds = list(info.metadata)
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        bounds += [inner for each in more for inner in getattr(each, "metadata", [each])]
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if annotation is bool:
        return st.booleans()
    if annotation in (int, float):
        low = next(int(each.ge) for each in bounds if hasattr(each, "ge"))
        return st.integers(low, low + 5)
    if field == "naming.custom_patterns":
        return st.lists(st.sampled_from([".*", "raw_.*", "gold_.*"]), max_size=2, unique=True)
    raise AssertionError(f"{field} has the type {annotation}, of which this test knows no values")


FIELDS = governed(GovernanceFields)
LAYERS = st.lists(
    st.fixed_dictionaries({}, optional={field: values_of(field, info) for field, info in FIELDS.items()}),
    min_size=2,
    max_size=5,
)
"""What each layer states, by dotted field: the manifests, the outermost first, then the product."""


def nested(stated: Mapping[str, Any]) -> str | None:
    section: dict[str, Any] = {}
    for field, value in stated.items():
        outer, _, inner = field.rpartition(".")
        (section.setdefault(outer, {}) if outer else section)[inner] = value
    return json.dumps(section) if section else None


def merged(layers: Sequence[Mapping[str, Any]]) -> GovernanceResolution:
    *manifests, product = [nested(stated) for stated in layers]
    with tempfile.TemporaryDirectory() as folder:
        return resolve(Path(folder), *manifests, product=product)


def allowed(naming: NamingRules | None) -> set[str]:
    """Return the names in the pool that the naming policy lets pass."""
    models = [{"name": name, "original_file_path": f"models/{name}.sql", "columns": {}} for name in POOL]
    context = PolicyContext("strict")
    project = Project("shop", context, DescriptionPlaces(context.read_text), models=models)
    return set(POOL) - {str(finding.model) for finding in Naming().check(project, naming)}


def own_naming(stated: Mapping[str, Any]) -> NamingRules:
    return NamingRules(
        pattern=stated.get("naming.pattern"), custom_patterns=stated.get("naming.custom_patterns")
    )


def states_names(stated: Mapping[str, Any]) -> bool:
    return bool(stated.get("naming.pattern") or stated.get("naming.custom_patterns"))


def place(position: int, layers: Sequence[Mapping[str, Any]]) -> str:
    return "floe.yaml" if position == len(layers) - 1 else f"m{position}.yaml"


def in_force(resolution: GovernanceResolution) -> dict[str, Any]:
    return {decision.field: decision.value for decision in resolution.decisions}


def test_every_field_of_both_documents_has_a_rule() -> None:
    assert set(governed(with_settings(ManifestGovernance))) == set(GOVERNANCE_RULES)
    # What the platform allows is not the product's to say.
    for model in (GovernanceFields, ProductGovernance):
        assert set(governed(with_settings(model))) == set(GOVERNANCE_RULES) - PLATFORM_ALONE
    by_rule = {name: {f for f, rule in GOVERNANCE_RULES.items() if rule.name == name} for name in RULE_NAMES}
    assert by_rule == {
        "stricter": {*STRICTEST_FIRST, *GREATER_IS_STRICTER, *FALSE_IS_STRICTER, *BOUNDS},
        "outermost": NAMES,
        "common": COMMON,
        "every": EVERY,
        "all": TOGETHER,
        "nearest": LIFE_OF_DATA,
    }


@settings(max_examples=150, deadline=None)
@given(layers=LAYERS)
def test_the_merged_value_is_weaker_than_that_of_no_layer_and_every_attempt_is_a_finding(
    layers: list[dict[str, Any]],
) -> None:
    resolution = merged(layers)
    values, attempts = in_force(resolution), set()
    for field in {*STRICTEST_FIRST, *GREATER_IS_STRICTER}:
        stated = [(position, layer[field]) for position, layer in enumerate(layers) if field in layer]
        assert (field in values) == bool(stated)
        for position, value in stated:
            assert weakness(field, values[field]) <= weakness(field, value)
            outer = [other for number, other in stated if number < position]
            if any(weakness(field, value) > weakness(field, other) for other in outer):
                attempts.add((place(position, layers), f"governance.{field}"))
    for field in LIFE_OF_DATA:
        stated = [(position, layer[field]) for position, layer in enumerate(layers) if field in layer]
        assert values.get(field) == (stated[-1][1] if stated else None)
    found = {(str(finding.file), str(finding.field)) for finding in resolution.findings}
    assert {each for each in found if each[1].removeprefix("governance.") not in NAMES} == attempts
    strict = resolution.effective_level == "strict"
    assert {finding.severity for finding in resolution.findings} <= {"error" if strict else "warning"}


@settings(max_examples=150, deadline=None)
@given(layers=LAYERS)
def test_the_outermost_layer_that_speaks_of_names_decides_which_are_allowed(
    layers: list[dict[str, Any]],
) -> None:
    resolution = merged(layers)
    deciding = next((position for position, layer in enumerate(layers) if states_names(layer)), None)
    found = {
        (finding.file, finding.field)
        for finding in resolution.findings
        if str(finding.field).removeprefix("governance.") in NAMES
    }
    if deciding is None:
        assert allowed(resolution.settings.get("naming")) == set(POOL) and not found
        return
    decided = own_naming(layers[deciding])
    assert allowed(resolution.settings.get("naming")) == allowed(decided)
    pattern, patterns = decided.pattern or "custom", set(decided.custom_patterns or ())
    attempts = set()
    for position, layer in enumerate(layers[deciding + 1 :], deciding + 1):
        if layer.get("naming.pattern", pattern) != pattern:
            attempts.add((place(position, layers), "governance.naming.pattern"))
        if set(layer.get("naming.custom_patterns", patterns)) != patterns:
            attempts.add((place(position, layers), "governance.naming.custom_patterns"))
        own = {field: layer[field] for field in NAMES & layer.keys()}
        repeats = own.items() <= layers[deciding].items()
        if not repeats and states_names(layer) and allowed(own_naming(layer)) - allowed(decided):
            assert {(place(position, layers), f"governance.{field}") for field in NAMES} & found
    assert found == attempts


@settings(max_examples=100, deadline=None)
@given(layers=LAYERS, data=st.data())
def test_no_order_of_the_inner_layers_helps_to_weaken(
    layers: list[dict[str, Any]], data: st.DataObject
) -> None:
    outermost, *inner = layers
    other = [outermost, *data.draw(st.permutations(inner))]
    first, second = merged(layers), merged(other)
    for field in {*STRICTEST_FIRST, *GREATER_IS_STRICTER}:
        assert in_force(first).get(field) == in_force(second).get(field)
    if states_names(outermost):
        assert allowed(first.naming) == allowed(second.naming) == allowed(own_naming(outermost))


@settings(max_examples=100, deadline=None)
@given(layers=LAYERS)
def test_of_every_value_it_is_known_who_decided_and_who_was_overruled(layers: list[dict[str, Any]]) -> None:
    resolution = merged(layers)
    names = [f"manifest layer-{position}" for position in range(len(layers) - 1)] + ["product shop"]
    assert {decision.field for decision in resolution.decisions} >= {
        field for layer in layers for field, value in layer.items() if value != []
    }
    for decision in resolution.decisions:
        position = names.index(decision.decided_by)
        assert decision.file == place(position, layers)
        assert decision.rule == GOVERNANCE_RULES[decision.field].name
        stated = layers[position].get(decision.field)
        # `custom` follows from patterns alone; where the pattern has a name, there are none.
        assert decision.value == stated or (stated in (None, []) and decision.value in (None, "custom"))
        assert dict(decision.overruled) == {
            name: layer[decision.field]
            for name, layer in zip(names, layers, strict=True)
            if decision.field in layer
            and name != decision.decided_by
            and layer[decision.field] != decision.value
        }


@pytest.mark.parametrize(
    ("platform", "product", "field"),
    [
        ("{pattern: kimball}", "{pattern: custom, custom_patterns: ['.*']}", "pattern"),
        ("{pattern: kimball}", "{pattern: medallion}", "pattern"),
        ("{pattern: kimball}", "{custom_patterns: ['.*']}", "custom_patterns"),
        ("{custom_patterns: ['x_.*']}", "{pattern: kimball}", "pattern"),
        ("{custom_patterns: ['x_.*']}", "{custom_patterns: ['x_.*', 'y_.*']}", "custom_patterns"),
        ("{pattern: custom}", "{custom_patterns: ['.*']}", "custom_patterns"),
        ("{pattern: custom, custom_patterns: ['x_.*']}", "{custom_patterns: []}", "custom_patterns"),
    ],
)
def test_a_product_replaces_no_naming_rule_of_the_platform(
    tmp_path: Path, platform: str, product: str, field: str
) -> None:
    resolution = resolve(
        tmp_path,
        f"{{policy_enforcement_level: strict, naming: {platform}}}",
        product=f"{{naming: {product}}}",
    )
    finding = next(each for each in resolution.findings if each.field == f"governance.naming.{field}")
    assert (finding.code, finding.severity, finding.file, finding.line) == (
        "weakened-governance",
        "error",
        "floe.yaml",
        4,
    )
    assert "m0.yaml:4" in str(finding.allowed) and finding.fix
    wanted = NamingRules.model_validate(yaml.safe_load(platform))
    assert allowed(resolution.settings.get("naming")) == allowed(wanted)


@pytest.mark.parametrize(
    ("platform", "product"),
    [
        ("{pattern: kimball}", "{pattern: kimball}"),
        ("{custom_patterns: [a, b]}", "{custom_patterns: [b, a]}"),
        ("{custom_patterns: [a]}", "{pattern: custom}"),
        ("{pattern: kimball}", "{enforcement: strict, custom_patterns: []}"),
        ("{enforcement: warn}", "{pattern: kimball, enforcement: strict}"),
    ],
)
def test_to_say_the_same_again_or_what_nobody_said_is_fine(
    tmp_path: Path, platform: str, product: str
) -> None:
    assert resolve(tmp_path, f"{{naming: {platform}}}", product=f"{{naming: {product}}}").findings == []


@pytest.mark.parametrize(
    ("lists", "refused_by"),
    [
        (["[shop]"], []),
        (["['sh*', other]"], []),
        (["[other, 'shop-*']"], [0]),
        (["[]"], [0]),
        (["['*']", "[shop]"], []),
        (["['s*']", None, "[other]"], [2]),
        (["[other]", "[shop]"], [0]),
    ],
)
def test_a_manifest_says_which_products_may_use_it(
    tmp_path: Path, lists: list[str | None], refused_by: list[int]
) -> None:
    resolution = resolve(tmp_path, *(f"{{products: {names}}}" if names else None for names in lists))
    assert [finding.code for finding in resolution.findings] == ["product-not-allowed"] * len(refused_by)
    for finding, number in zip(resolution.findings, refused_by, strict=True):
        assert (finding.severity, finding.file, finding.line) == ("error", "floe.yaml", 3)
        assert f"layer-{number}" in finding.message and f"m{number}.yaml:" in str(finding.allowed)
    (decision,) = resolution.decisions
    assert (decision.field, decision.rule, decision.overruled) == ("products", "every", ())


BOUNDED = "bounds: {snapshot_keep_last: {min: 5, max: 20}, default_ttl_hours: {min: 24}, data_retention_days: {max: 90}}"


@pytest.mark.parametrize(
    ("field", "value", "in_force"),
    [
        ("snapshot_keep_last", 1, 5),
        ("snapshot_keep_last", 5, None),
        ("snapshot_keep_last", 20, None),
        ("snapshot_keep_last", 21, 20),
        ("default_ttl_hours", 1, 24),
        ("default_ttl_hours", 36_500, None),
        ("data_retention_days", 36_500, 90),
        ("data_retention_days", 89, None),
    ],
)
@pytest.mark.parametrize("level", ["warn", "strict"])
def test_a_product_chooses_within_the_bounds_of_the_platform(
    tmp_path: Path, field: str, value: int, in_force: int | None, level: str
) -> None:
    section = f"{{policy_enforcement_level: {level}, {BOUNDED}}}"
    resolution = resolve(tmp_path, section, None, product=f"{{{field}: {value}}}")
    decision = next(each for each in resolution.decisions if each.field == field)
    lifecycle = resolution.lifecycle()
    if in_force is None:
        assert (decision.value, decision.decided_by, resolution.findings) == (value, "product shop", [])
        assert getattr(lifecycle, field) == value
        return
    assert (decision.value, decision.rule, decision.decided_by) == (in_force, "bounds", "manifest layer-0")
    assert decision.overruled == (("product shop", value),)
    assert getattr(lifecycle, field) == in_force
    (finding,) = resolution.findings
    assert (finding.code, finding.severity) == ("out-of-bounds", "error" if level == "strict" else "warning")
    assert (finding.file, finding.line, finding.field) == ("floe.yaml", 4, f"governance.{field}")
    assert str(in_force) in str(finding.allowed) and "m0.yaml:" in str(finding.allowed)


def test_bounds_are_narrowed_and_never_widened(tmp_path: Path) -> None:
    outer = "{bounds: {snapshot_keep_last: {min: 5, max: 20}}, snapshot_keep_last: 18}"
    inner = "{bounds: {snapshot_keep_last: {min: 2, max: 10}}}"
    resolution = resolve(tmp_path, outer, inner)
    # What an outer layer stated before it was narrowed is no fault of its.
    assert [(finding.file, finding.field) for finding in resolution.findings] == [
        ("m1.yaml", "governance.bounds.snapshot_keep_last.min")
    ]
    assert resolution.lifecycle().snapshot_keep_last == 10
    clash = resolve(tmp_path, outer, "{bounds: {snapshot_keep_last: {min: 30}}}")
    assert clash.lifecycle().snapshot_keep_last == 20
