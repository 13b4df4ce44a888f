"""What each policy looks at is data: it finds a fault in each type of resource that it names, and gets no other."""

from __future__ import annotations

import string
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floe_dagster.policies import POLICIES
from floe_dagster.policies.allowed import Allowed
from floe_dagster.policies.model import RESOURCE_TYPES, PolicyContext, Project
from floe_dagster.policies.naming import NamingRules
from floe_dagster.policies.personal_data import PERSONAL_NAMES, PersonalDataRules
from floe_dagster.policies.quality_gates import QualityGates
from floe_dagster.policies.secrets import SecretRules
from floe_dagster.policies.words import says_something, words_of
from floe_dagster.schemas.base import NotAllowedError
from floe_dagster.schemas.manifest import Exemption
from floe_dagster.schemas.patterns import compiled
from tests.unit.test_policies import evaluate, file, found, model
from tests.unit.test_weak_tests import data_test

BUILT_IN = {
    "unique_id": "macro.dbt.test_unique",
    "resource_type": "macro",
    "package_name": "dbt",
    "name": "test_unique",
    "original_file_path": "macros/generic_test.sql",
}


def macro(name: str, **fields: Any) -> dict[str, Any]:
    return {**BUILT_IN, "unique_id": f"macro.shop.{name}", "package_name": "shop", "name": name, **fields}


def built_ins(*names: str) -> list[dict[str, Any]]:
    return [{**BUILT_IN, "unique_id": f"macro.dbt.{name}", "name": name} for name in names]


def snapshot(name: str, **fields: Any) -> dict[str, Any]:
    return {**model(name, **fields), "unique_id": f"snapshot.shop.{name}", "resource_type": "snapshot"}


def seed(name: str, **fields: Any) -> dict[str, Any]:
    published = {"config": {"meta": {"floe": {"publish": True}}}}
    return {**model(name, **published, **fields), "unique_id": f"seed.shop.{name}", "resource_type": "seed"}


def of_package(node: dict[str, Any]) -> dict[str, Any]:
    kind, _, rest = node["unique_id"].split(".", 2)
    return {**node, "package_name": "other", "unique_id": f"{kind}.other.{rest}", "patch_path": None}


EMAIL = {"columns": {"email": {}}}
RULES: dict[str, Any] = {
    "naming": NamingRules(pattern="kimball"),
    "quality_gates": QualityGates(require_descriptions=True, minimum_test_coverage=100),
    "pii_encryption": "required",
    "level": "strict",
}
PLANTED: dict[tuple[str, str], dict[str, Any]] = {
    **{
        (policy, kind): {"nodes": [make("bad")]}
        for policy in ("naming", "documentation", "test_coverage", "personal_data")
        for kind, make in (
            ("model", lambda name: model(name, **EMAIL)),
            ("snapshot", lambda name: snapshot(name, **EMAIL)),
            ("seed", lambda name: seed(name, **EMAIL)),
            ("package", lambda name: of_package(model(name, **EMAIL))),
        )
        if kind in POLICIES[policy].looks_at
    },
    ("references", "model"): {"nodes": [model("bad", raw_code="select 1 from raw.x")]},
    ("references", "snapshot"): {"nodes": [snapshot("bad", raw_code="select 1 from raw.x")]},
    ("references", "test"): {"nodes": [data_test("bad", raw="select 1 from raw.x")]},
    ("references", "package"): {"nodes": [of_package(model("bad", raw_code="select 1 from raw.x"))]},
    ("weak_tests", "test"): {"nodes": [model("a"), data_test("bad", limit=0)]},
    ("weak_tests", "package"): {"nodes": [of_package(data_test("bad", limit=0))]},
    ("code", "model"): {"nodes": [model("bad", language="python")]},
    ("code", "snapshot"): {"nodes": [snapshot("bad", config={"post-hook": [{"sql": "select 1"}]})]},
    ("code", "seed"): {"nodes": [seed("bad") | {"config": {"pre-hook": ["select 1"]}}]},
    ("code", "macro"): {"macros": [BUILT_IN, macro("test_unique")]},
    ("code", "hook"): {
        "nodes": [
            {
                "unique_id": "operation.shop.shop-on-run-start-0",
                "resource_type": "operation",
                "package_name": "shop",
                "name": "shop-on-run-start-0",
                "original_file_path": "./dbt_project.yml",
                "raw_code": "select 1",
            }
        ]
    },
    ("code", "package"): {"nodes": [of_package(model("bad"))]},
    ("ownership", "model"): {"nodes": [model("bad")], "owner": None},
    ("ownership", "snapshot"): {"nodes": [snapshot("bad")], "owner": None},
    ("ownership", "package"): {"nodes": [of_package(model("bad"))], "owner": None},
    ("tier_order", "model"): {
        "nodes": [model("bad", folder="gold", reads=("raw",)), model("raw", folder="bronze")]
    },
    ("tier_order", "snapshot"): {
        "nodes": [snapshot("bad", folder="gold", reads=("raw",)), model("raw", folder="bronze")]
    },
    ("tier_order", "package"): {
        "nodes": [of_package(model("bad", folder="gold", reads=("raw",))), model("raw", folder="bronze")]
    },
    **{
        ("secrets", kind): {"files": [file("-- AKIAIOSFODNN7EXAMPLE", name)]}
        for kind, name in {
            "model": "models/a.sql", "snapshot": "snapshots/s.sql", "seed": "seeds/a.csv", "source": "models/src.yml",
            "macro": "macros/m.sql", "hook": "dbt_project.yml", "test": "tests/t.sql", "package": "dbt_packages/p/models/a.py",
            "file": "docs/d.md", "document": "floe.yaml",
        }.items()
    },
}  # fmt: skip
ELSEWHERE = {("agreement", "model"), ("plugins", "document"), ("built_columns", "column")}
"""Of what only compiled products and runs have; tests of these show it."""
TAKEN_INTO_ACCOUNT = {
    ("test_coverage", "test"), ("test_coverage", "macro"), ("weak_tests", "model"), ("weak_tests", "snapshot"),
    ("weak_tests", "macro"),
}  # fmt: skip
"""Looked at to judge others."""


def test_each_policy_says_what_it_looks_at_and_each_entry_is_shown_here() -> None:
    said = {(policy.name, kind) for policy in POLICIES.values() for kind in policy.looks_at}
    assert said == PLANTED.keys() | ELSEWHERE | TAKEN_INTO_ACCOUNT
    assert all(kind in RESOURCE_TYPES for _policy, kind in said)


@pytest.mark.parametrize(("policy", "kind"), sorted(PLANTED))
def test_a_fault_is_found_in_each_type_of_resource_that_a_policy_names(policy: str, kind: str) -> None:
    planted = {**PLANTED[policy, kind]}
    findings = found(evaluate(*planted.pop("nodes", ()), **RULES, **planted), policy)
    assert findings and all(finding.fix for finding in findings)
    assert all((finding.file or "").startswith("products/shop/") for finding in findings)


@given(types=st.sets(st.sampled_from(RESOURCE_TYPES)))
def test_a_policy_gets_what_it_names_and_nothing_else(types: set[Any]) -> None:
    nodes = [model("m"), snapshot("s"), seed("d"), data_test("t")]
    nodes += [of_package(node) for node in nodes]
    manifest = {
        "metadata": {"project_name": "shop", "adapter_type": "duckdb"},
        "nodes": {node["unique_id"]: node for node in nodes},
        "macros": {"macro.shop.x": macro("x")},
    }
    seen = Project.of(manifest, PolicyContext("warn")).seen_by(types)
    for kind, listed in (
        ("model", [n for n in seen.models if n["resource_type"] == "model"]),
        ("snapshot", [n for n in seen.models if n["resource_type"] == "snapshot"]),
        ("seed", seen.seeds),
        ("test", seen.tests),
    ):
        assert len(listed) == ((2 if "package" in types else 1) if kind in types else 0)
    assert len(seen.macros) == ("macro" in types)
    assert seen.packages == (["other"] if "package" in types else [])


@pytest.mark.parametrize(
    "planted",
    [
        {"nodes": [model("a", config={"pre-hook": [{"sql": "select 1"}]})], "allow": Allowed(hooks=True)},
        {"nodes": [model("a", language="python")], "allow": Allowed(python_models=True)},
        {"nodes": [of_package(model("a"))], "allow": Allowed(packages=["other"])},
        {"macros": [BUILT_IN, macro("test_unique")], "allow": Allowed(macros=["test_unique"])},
        {"macros": [BUILT_IN, macro("cents_to_dollars")]},
        {"macros": [*built_ins("generate_schema_name"), macro("generate_schema_name")]},
        {"macros": [BUILT_IN, macro("trino__get_drop_sql", original_file_path="floe_macros/trino.sql")]},
        {"nodes": [model("a", config={"pre-hook": [], "post-hook": [{"sql": " "}]})]},
    ],
)
def test_what_the_platform_allows_is_no_finding(planted: dict[str, Any]) -> None:
    planted = {**planted}
    assert found(evaluate(*planted.pop("nodes", ()), **planted), "code") == []


@pytest.mark.parametrize(
    ("name", "takes_the_place_of"),
    [
        ("test_unique", "test_unique"),
        ("test_not_null", "test_not_null"),
        ("default__test_unique", "test_unique"),
        ("duckdb__test_unique", "test_unique"),
        ("get_where_subquery", "get_where_subquery"),
        ("default__get_where_subquery", "get_where_subquery"),
        ("should_store_failures", "should_store_failures"),
        ("materialization_test_default", "materialization_test_default"),
        ("materialization_table_duckdb", "materialization_table_default"),
        ("materialization_table_trino", "materialization_table_default"),
        ("ref", "ref"),
        ("source", "source"),
    ],
)
def test_a_macro_that_takes_the_place_of_dbts_own_is_found(name: str, takes_the_place_of: str) -> None:
    own = built_ins(
        "test_unique", "default__test_unique", "test_not_null", "get_where_subquery", "default__get_where_subquery",
        "should_store_failures", "materialization_test_default", "materialization_table_default",
    )  # fmt: skip
    (finding,) = found(evaluate(macros=[*own, macro(name)]), "code")
    assert (finding.code, finding.model) == (
        "built-in-replaced",
        name,
    ) and takes_the_place_of in finding.message


EXEMPTION = Exemption(
    policy="naming", model="orders", reason="it is old", owner="platform", until="2999-01-01"
)


def test_an_exemption_takes_one_policy_off_one_model_and_is_told() -> None:
    report = evaluate(
        model("orders"),
        model("other"),
        naming=NamingRules(pattern="kimball"),
        level="strict",
        exemptions=[EXEMPTION],
    )
    result = report.results["naming"]
    assert [finding.model for finding in result.findings] == ["other"]
    assert [(finding.model, why.reason) for finding, why in result.exempted] == [("orders", "it is old")]
    told = report.to_dict()["results"]["naming"]["exempted"][0]
    assert told["finding"]["model"] == "orders" and told["exemption"]["until"] == "2999-01-01"
    described = evaluate(model("orders"), **{**RULES, "exemptions": [EXEMPTION]})
    assert [f.model for f in found(described, "documentation")] == ["orders"]


PERSONAL = [name for names in PERSONAL_NAMES.values() for name in names]


def written(words: list[str], how: str) -> str:
    """Return words as people write names of columns."""
    first, *rest = words
    return {
        "snake": "_".join(words),
        "upper": "_".join(words).upper(),
        "camel": first + "".join(word.capitalize() for word in rest),
        "pascal": "".join(word.capitalize() for word in words),
        "kebab": "-".join(words),
        "spaces": " ".join(word.capitalize() for word in words),
        "joined": "".join(words),
        "part": "customer_" + "_".join(words) + "_2",
        "plural": "_".join(words) + ("es" if words[-1].endswith(("s", "x")) else "s"),
    }[how]


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(PERSONAL),
    how=st.sampled_from(["snake", "upper", "camel", "pascal", "kebab", "spaces", "joined", "part", "plural"]),
)
def test_a_name_of_personal_data_is_found_however_it_is_written(name: str, how: str) -> None:
    column = written(name.split(), how)
    report = evaluate(model("a", columns={column: {}}), pii_encryption="required")
    assert [f.code for f in found(report, "personal_data")] == ["unclassified-personal-data"], column


@pytest.mark.parametrize(
    "column",
    [
        "amount", "order_id", "product_name", "name", "emailed_at", "email_count", "has_phone", "is_email_valid", "status",
        "country", "equipment_id", "telemetry", "sextant", "zipper", "taxes", "ip_count", "streetcar_line", "mobility",
        "satisfaction", "measured_at", "value_at_risk_99", "gross_exposure", "description", "shipped_on",
    ],
)  # fmt: skip
def test_other_names_are_left_alone(column: str) -> None:
    assert not found(evaluate(model("a", columns={column: {}}), pii_encryption="required"), "personal_data")


@pytest.mark.parametrize(
    ("column", "values", "code"),
    [
        ("id", {"tags": ["PII"]}, "unclassified-personal-data"),
        ("id", {"config": {"meta": {"contains_pii": True}}}, "unclassified-personal-data"),
        ("email", {"meta": {"classification": "none-of-your-business"}}, "unknown-classification"),
        ("amount", {"meta": {"classification": "whatever"}}, "unknown-classification"),
        ("email", {"meta": {"classification": ["confidential"]}}, "unknown-classification"),
        ("email", {"meta": {"classification": "public"}}, "public-personal-data"),
        ("amount", {"meta": {"classification": "public"}}, None),
        ("email", {"meta": {"classification": "restricted"}}, None),
        ("email_hash", {}, "unclassified-personal-data"),
    ],
)
def test_how_a_column_may_be_classified(column: str, values: dict[str, Any], code: str | None) -> None:
    report = evaluate(model("a", columns={column: values}), pii_encryption="required")
    assert [f.code for f in found(report, "personal_data")] == ([code] if code else [])


def test_the_platform_has_names_and_classifications_of_its_own() -> None:
    rules = PersonalDataRules(names=["loyalty number"], classifications=["c1", "c2"])
    columns = {
        "loyaltyNumbers": {},
        "email": {"meta": {"classification": "c2"}},
        "x": {"meta": {"classification": "public"}},
    }
    report = evaluate(model("a", columns=columns), pii_encryption="required", personal_data=rules)
    found_in = {f.message.split("'")[1]: (f.code, f.fix) for f in found(report, "personal_data")}
    assert found_in["loyaltyNumbers"][0] == "unclassified-personal-data" and "c1" in str(
        found_in["loyaltyNumbers"][1]
    )
    assert found_in["x"][0] == "unknown-classification" and "email" not in found_in


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "x",
        "X.",
        "xxx",
        "-",
        "\u200b",
        "todo",
        "TODO:",
        "To do",
        "tbd.",
        "n/a",
        "N.A.",
        "...",
        "id",
        "null",
        "No description",
        "123",
        "**",
        "_",
    ],
)
def test_a_text_without_words_describes_nothing(text: str) -> None:
    assert not says_something(text)


@pytest.mark.parametrize(
    "text", ["Key.", "Sum.", "Orders of the shop.", "顧客", "Größe", "Ключ", "VAT rate", "The id"]
)
def test_words_describe(text: str) -> None:
    assert says_something(text)


@given(name=st.text(alphabet=string.printable, max_size=40))
def test_any_name_has_words_in_lower_case(name: str) -> None:
    assert all(word == word.lower() and word for word in words_of(name))


FORMS = {
    "an AWS key": "AKIAABCDEFGHIJKLMNOP",
    "an AWS key in two parts": "'AKIA' || 'ABCDEFGHIJKLMNOP'",
    "an AWS key joined by Jinja": "'AKIA' ~ 'ABCDEFGHIJKLMNOP'",
    "a URL": "postgres://admin:hunter22@db/prod",
    "a URL without a user": "redis://:hunter22@db/0",
    "a password": "password = 'hunter2222'",
    "a password in double quotes": 'password = "hunter2222"',
    "a password in YAML": "password: hunter2222",
    "a part of a name": "s3_secret_access_key='wJalrXUtnFEMI/K7MDENG'",
    "an option of SQL": "create secret (type s3, secret 'wJalrXUtnFEMI/K7MDENG')",
    "identified by": "alter user a password 'hunter2222'",
    "a connection string": "host=db user=a pwd=hunter22",
    "Azure": "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq==",
    "GitLab": "glpat-abcdefghij1234567890",
    "GitHub": "ghp_" + "a1B2" * 9,
    "GitHub, fine-grained": "github_pat_11ABCDEFG0abcdefghijkl_abcdefghijklmnop",
    "Google": "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "OpenAI": "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD",
    "Databricks": "dapi0123456789abcdef0123456789abcdef",
    "Hugging Face": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "Slack": "xoxb-123456789012-abcdefGHIJKL",
    "Stripe": "sk_live_" + "a1B2" * 6,
    "a web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "a bearer": "Authorization: Bearer abcdefghijkl123456",
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a PGP key": "-----BEGIN PGP PRIVATE KEY BLOCK-----",
    "npm": "npm_" + "a1B2" * 9,
}  # fmt: skip
HOLDERS = {
    "models/a.sql": "-- {}\nselect 1",
    "macros/m.sql": "{{% macro c() %}}\n-- {}\n{{% endmacro %}}",
    "models/s.yml": "# a\n# {}",
    "models/d.md": "Use it:\n\n    {}\n",
    "models/m.py": "def model(dbt, session):\n    pass  # {}\n",
    "dbt_packages/p/models/a.sql": "/* {} */",
}


@pytest.mark.parametrize("holder", sorted(HOLDERS))
@pytest.mark.parametrize("form", sorted(FORMS))
def test_each_form_of_a_secret_is_found_in_each_kind_of_file(form: str, holder: str) -> None:
    text = HOLDERS[holder].format(FORMS[form])
    (finding,) = found(evaluate(files=[file(text, holder)]), "secrets")
    assert finding.line == text[: text.index(FORMS[form])].count("\n") + 1
    assert FORMS[form] not in finding.to_text() and "hunter2" not in finding.to_text()


def test_a_seed_with_a_column_of_passwords_holds_secrets() -> None:
    csv = "id,userPassword\n1,\n2,letmein\n"
    (finding,) = found(evaluate(files=[file(csv, "seeds/u.csv")]), "secrets")
    assert finding.line == 3 and "letmein" not in finding.to_text()
    assert not found(evaluate(files=[file("id,password_hash\n1,a\n", "seeds/u.csv")]), "secrets")


def test_the_platform_has_forms_and_names_of_its_own() -> None:
    rules = SecretRules(names=["license"], patterns=["acme_[a-z]{8}"])
    files = [file("-- license = 'aB3dE5gH7'\n-- acme_abcdefgh")]
    assert [f.line for f in found(evaluate(files=files, secrets=rules), "secrets")] == [1, 2]
    assert not found(evaluate(files=files), "secrets")


@pytest.mark.parametrize(
    "text",
    ["a" * 2_000_000, "a_" * 1_000_000 + "password", "password " * 200_000, "://a:" * 200_000, "'" + " " * 1_000_000, "('a' ||" * 200_000, "sk-" * 500_000],
    ids=["a", "parts", "names", "urls", "spaces", "joined", "keys"],
)  # fmt: skip
def test_no_text_keeps_the_search_for_secrets_busy(text: str) -> None:
    begun = time.process_time()
    evaluate(files=[file(text)])
    # What is not linear takes minutes.
    assert time.process_time() - begun < 15


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(a|a)*$", "(.*a){25}", "^(([a-z])+.)+[A-Z]([a-z])+$", "(x+x+)+y"]
)
def test_no_pattern_of_a_product_keeps_the_compiler_busy(pattern: str) -> None:
    begun = time.process_time()
    names = NamingRules(pattern="custom", custom_patterns=[pattern])
    evaluate(model("a" * 200 + "!"), model("x" * 200), naming=names)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(?<!x)y", "(", "[a"])
def test_a_pattern_that_cannot_be_matched_in_linear_time_is_refused_in_words(pattern: str) -> None:
    with pytest.raises(NotAllowedError) as refused:
        compiled(pattern)
    assert "look-ahead" in refused.value.allowed
