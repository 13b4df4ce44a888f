"""What a dbt project reads of the environment: what product and platform agree on, and none of the platform's credentials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from floe_dagster.cli import main
from floe_dagster.compilation.dbt_environment import is_confining
from floe_dagster.compilation.pipeline import validate_product
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog

MARK = "MARKER-of-a-credential"


@pytest.fixture
def agreed(shop: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A product that may read REGION, where a credential of the platform is set as well."""
    manifest = shop.parent / "manifest.yaml"
    manifest.write_text(manifest.read_text() + "governance: {environment: [REGION]}\n")
    (shop / "floe.yaml").write_text((shop / "floe.yaml").read_text() + "environment: [REGION]\n")
    monkeypatch.setenv("REGION", "eu-north")
    monkeypatch.setenv("POLARIS_CLIENT_SECRET", MARK)
    return shop


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("models/a.sql", "select 1 as id,\n'{{ env_var(\"POLARIS_CLIENT_SECRET\") }}' as x\n", 2),
        (
            "models/a.yml",
            "models:\n  - name: orders\n    description: \"{{ env_var('POLARIS_CLIENT_SECRET') }}\"\n",
            3,
        ),
        ("dbt_project.yml", "name: shop\nmodels:\n  +alias: \"{{ env_var('POLARIS_CLIENT_SECRET') }}\"\n", 3),
        ("packages.yml", "packages:\n  - local: \"{{ env_var('POLARIS_CLIENT_SECRET') }}\"\n", 2),
    ],
)
def test_a_variable_that_is_not_listed_is_a_finding_where_it_is_read(
    agreed: Path, file: str, text: str, line: int
) -> None:
    (agreed / file).write_text(text)
    (finding,) = [each for each in validate_product(agreed).findings if each.severity == "error"]
    assert (finding.code, finding.file, finding.line) == ("environment-not-allowed", f"shop/{file}", line)
    assert finding.message == "dbt does not get the environment variable POLARIS_CLIENT_SECRET"
    assert finding.found == "POLARIS_CLIENT_SECRET" and "environment: [POLARIS_CLIENT_SECRET]" in (
        finding.fix or ""
    )
    assert MARK not in finding.to_text()


def test_a_variable_that_is_listed_and_not_set_is_told_as_that(
    agreed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGION")
    (agreed / "models" / "orders.sql").write_text("select '{{ env_var('REGION') }}' as region\n")
    (finding,) = validate_product(agreed).findings
    assert (finding.code, finding.file, finding.line) == ("environment-not-set", "shop/models/orders.sql", 1)
    assert "export REGION=" in (finding.fix or "")


def test_a_default_that_takes_the_place_of_a_variable_is_a_warning(agreed: Path) -> None:
    (agreed / "models" / "orders.sql").write_text(
        "select '{{ env_var('REGION') }}' as a, '{{ env_var('UNSET', 'x') }}' as b,\n"
        "  '{{ env_var('POLARIS_CLIENT_SECRET', 'y') }}' as c\n"
    )
    findings = [each for each in validate_product(agreed).findings if each.code.startswith("environment")]
    assert [(each.code, each.severity, each.file, each.line) for each in findings] == [
        ("environment-not-passed", "warning", "shop/models/orders.sql", 2)
    ]


PYTHON_MODEL = """\
def model(dbt, session):
    import glob, os, signal
    import pyarrow as pa

    found = [" ".join(f"{name}={value}" for name, value in os.environ.items())]
    for path in glob.glob("/proc/[0-9]*/environ"):
        try:
            found.append(open(path, errors="replace").read())
        except OSError as error:
            found.append(str(error))
    try:
        os.kill(os.getppid(), signal.SIGWINCH)
        found.append("the parent takes signals")
    except PermissionError:
        pass
    return pa.table({"found": found})
"""
HOSTILE = {
    "own.sql": "select content from read_text('/proc/self/environ')",
    # Of its parent: the process that forks, or the one that has the credentials.
    "all.sql": "{{ config(pre_hook=\"set variable p = (select max('/proc/' || "
    "regexp_extract(content, '\\) . (\\d+)', 1) || '/environ') from read_text('/proc/self/stat'))\") }} "
    "select content from read_text(getvariable('p'))",
    "glob.sql": "select content from read_text('/proc/*/environ')",
    # A view is executed again by who publishes it, in the process that has the credentials.
    "shown.sql": "{{ config(materialized='view', meta={'floe': {'publish': true}}) }} "
    "select content from read_text('/proc/self/environ')",
    "swapped.sql": '{{ config(post_hook=["drop table {{ this }}", "create view {{ this }} as '
    "select content from read_text('/proc/self/environ')\"]) }} select 1 as content",
    "sniffed.sql": "{{ config(materialized='view') }} select * from read_csv('/proc/self/environ')",
    "region.sql": "select '{{ env_var('REGION') }}' as region",
    "python.py": PYTHON_MODEL,
}


@pytest.mark.slow
def test_a_hostile_product_publishes_no_credential(
    agreed: Path, home: FloeHome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert is_confining(), "this kernel has no Landlock: boot one with lsm=landlock to run this test"
    monkeypatch.setenv("FLOE_HOME", str(home.path))
    with (agreed / "dbt_project.yml").open("a") as project:
        # A macro of the project has the name of a function that could be asked whether the connection is locked.
        project.write("on-run-start: [\"create or replace macro main.current_setting(x) as 'x'\"]\n")
    for name, text in HOSTILE.items():
        (agreed / "models" / name).write_text(text)
    assert main(["run", str(agreed)]) == 1
    printed = capsys.readouterr()
    catalog = open_catalog(None, None, home=home)
    tables = {name for _namespace, name in catalog.list_tables("shop")}
    assert {"own", "region", "python", "orders"} <= tables
    assert not tables & {"all", "glob", "shown", "swapped"}
    rows: list[dict[str, Any]] = catalog.load_table("shop.region").scan().to_arrow().to_pylist()
    assert rows == [{"region": "eu-north"}]
    # Its own environment is there to be read, as the process that forks for dbt began with it: that the SQL was executed is
    # no guess.
    (own,) = catalog.load_table("shop.own").scan().to_arrow().to_pylist()
    assert "PATH=" in own["content"]
    (python, *_others) = catalog.load_table("shop.python").scan().to_arrow().to_pylist()
    assert "the parent takes signals" not in str(catalog.load_table("shop.python").scan().to_arrow())
    assert "REGION=eu-north" in python["found"]
    for name in tables:
        assert MARK not in str(catalog.load_table(f"shop.{name}").scan().to_arrow().to_pylist()), name
    assert MARK not in printed.out + printed.err
    for path in agreed.parent.rglob("*"):
        if path.is_file():
            assert MARK.encode() not in path.read_bytes(), path
