"""What somebody reads who has made a mistake, as dbt and the documents' readers really say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from floe_dagster.compilation.pipeline import validate_product
from tests.conftest import MANIFEST, SPEC

MODEL = "models:\n  - name: orders\n"
COLUMN = f"{MODEL}    columns:\n      - name: id\n        data_tests:"
UTILS = "packages:\n- name: dbt_utils\n  package: dbt-labs/dbt_utils\n  version: 1.1.1\n"
Files = dict[str, str]

DOCUMENTS: list[tuple[Files, str, str]] = [
    ({"floe.yaml": SPEC.replace("../manifest.yaml", '"../mani\\0fest.yaml"')}, "shop/floe.yaml:4", "U+0000"),
    (
        {"floe.yaml": SPEC.replace("../manifest", "../no")},
        "shop/floe.yaml:4",
        "platform.manifest in shop/floe.yaml names it",
    ),
    (
        {"../manifest.yaml": f"{MANIFEST}scope: domain\nparent_manifest: no.yaml\n"},
        "manifest.yaml:5",
        "parent_manifest in manifest.yaml names it",
    ),
    (
        {
            "../manifest.yaml": f"{MANIFEST}plugins: {{compute: {{type: duckdb, config: {{memory_limit: lots}}}}}}\n"
        },
        "manifest.yaml:4",
        "a number with a unit, such as 4GB",
    ),
    (
        {
            "../manifest.yaml": f"{MANIFEST}observability: {{tracing: {{exporter: otlp, endpoint: 'http://a:1', "
            "headers: {Authorization: {evn: TOKEN}}}}\n"
        },
        "manifest.yaml:4",
        "unknown field 'evn'",
    ),
    ({"packages.yml": "packages:\n  - package: a/b\n"}, "shop/packages.yml:2", "has no version"),
    ({"packages.yml": "packages:\n  - local: ../no\n"}, "shop/packages.yml:2", "no dbt project in ../no"),
]
PROJECTS: list[tuple[Files, str, str]] = [
    ({"models/a/s.yml": f"{MODEL}   columns: []\n"}, "models/a/s.yml:3", "Syntax error"),
    ({"models/s.yml": f"{MODEL}    columns: hello\n"}, "models/s.yml:3", "is not of type 'array'"),
    ({"models/s.yml": f"{COLUMN} [uniq]\n"}, "models/s.yml:5", "no macro defines the generic test 'uniq'"),
    ({"models/s.yml": f"{COLUMN}\n        - accepted_values: {{valuez: [1]}}\n"}, "models/s.yml:6", "valuez"),
    ({"models/s.yml": "models:\n  - description: x\n"}, "models/s.yml:2", "does not have a name"),
    ({"models/s.yml": "models:\n  - name: orderz\n"}, "models/s.yml:2", "orderz"),
    (
        {"models/s.yml": f"{MODEL}    config: {{materialized: [1]}}\n"},
        "models/s.yml:3",
        "is not of type 'string'",
    ),
    (
        {"models/s.yml": f"{MODEL}    description: \"{{{{ dock('x') }}}}\"\n"},
        "models/s.yml:3",
        "'dock' is undefined",
    ),
    ({"models/s.yml": f"{MODEL}    description: \"{{{{ doc('x' }}}}\"\n"}, "models/s.yml:3", "expected ')'"),
    ({"models/s.yml": f"{MODEL}    description: \"{{{{ doc('x') }}}}\"\n"}, "models/s.yml:3", "doc 'x'"),
    (
        {"models/s.yml": "sources:\n  - name: raw\n    tables:\n      - {nam: a}\n"},
        "models/s.yml:4",
        "required property",
    ),
    (
        {"models/s.yml": "exposures:\n  - {name: e, type: dash, owner: {name: x}}\n"},
        "models/s.yml:2",
        "is not one of",
    ),
    (
        {"models/daily.sql": "select 1\nfrom {{ source('a', 'b') }}\n"},
        "models/daily.sql:2",
        "source named 'a.b'",
    ),
    ({"models/daily.sql": "select 1\nfrom {{ ref('no') }}\n"}, "models/daily.sql:2", "node named 'no'"),
    ({"macros/m.sql": "{% macro a() %}\nselect\n{% endmacr %}\n"}, "macros/m.sql:1", "close tag for macro"),
    (
        {
            "snapshots/s.sql": "{% snapshot s %}\n{{ config(strategy='check') }}\nselect 1\n{% endsnapshot %}\n"
        },
        "snapshots/s.sql:2",
        "unique_key",
    ),
    (
        {"packages.yml": "packages:\n  - package: a/b\n    version: 1.0.0\n"},
        "packages.yml:1",
        "cannot be reached",
    ),
]


def findings_of(product: Path, files: Files) -> list[tuple[str, str]]:
    for name, text in files.items():
        (product / name).parent.mkdir(parents=True, exist_ok=True)
        (product / name).write_text(text)
    # What is known of these addresses nowhere: whoever resolves them asks a host that is none.
    environ = {
        "PATH": "/usr/bin:/bin",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    found = validate_product(product, environ=environ).findings
    return [(f"{finding.file}:{finding.line}", finding.to_text()) for finding in found]


def named(found: list[tuple[str, str]], place: str, words: str) -> bool:
    assert not any("Traceback" in text or "^" in text for _place, text in found), found
    return any(at == place and words in text for at, text in found)


@pytest.mark.parametrize(("files", "place", "words"), DOCUMENTS, ids=str)
def test_a_mistake_in_a_document_is_named_where_it_is(
    shop: Path, files: Files, place: str, words: str
) -> None:
    found = findings_of(shop, files)
    assert named(found, place, words), found


@pytest.mark.slow
@pytest.mark.parametrize(("files", "place", "words"), PROJECTS, ids=str)
def test_a_mistake_in_a_dbt_project_is_named_where_it_is(
    shop: Path, files: Files, place: str, words: str
) -> None:
    found = findings_of(shop, files)
    assert named(found, f"shop/{place}", words), found


def test_installed_packages_with_a_lock_are_used_and_belong_to_the_digest(shop: Path) -> None:
    macro = shop / "dbt_packages" / "dbt_utils" / "macros" / "one.sql"
    files = {
        "packages.yml": "packages:\n  - package: dbt-labs/dbt_utils\n    version: 1.1.1\n",
        "package-lock.yml": UTILS,
        "dbt_packages/dbt_utils/dbt_project.yml": "name: dbt_utils\nversion: 1.1.1\n",
        "dbt_packages/dbt_utils/macros/one.sql": "{% macro one() %}1{% endmacro %}\n",
        "models/daily.sql": "select {{ dbt_utils.one() }} as n from {{ ref('orders') }}\n",
    }
    assert not [text for _place, text in findings_of(shop, files) if "error" in text]
    before = validate_product(shop, documents_only=True).digest
    macro.write_text("{% macro one() %}2{% endmacro %}\n")
    assert validate_product(shop, documents_only=True).digest != before
    # Of another version than the one that is asked for nothing is installed.
    files = {"packages.yml": files["packages.yml"].replace("1.1.1", "1.3.0")}
    assert named(findings_of(shop, files), "shop/packages.yml:1", "cannot be reached")
