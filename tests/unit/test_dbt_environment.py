"""What a dbt process may know of the environment, and of other processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from floe_dagster.compilation.dbt_environment import (
    confined,
    dbt_environment,
    is_confining,
    passed_variables,
)
from floe_dagster.compilation.pipeline import validate_product
from floe_dagster.home import FloeHome
from floe_dagster.schemas.manifest import ManifestGovernance
from tests.conftest import MANIFEST

HOME = FloeHome(Path("/home/floe"))
USER_OF_PROXY = "somebody"
NOT_PASSED = (
    *(
        "POLARIS_CLIENT_SECRET",
        "MINIO_ROOT_PASSWORD",
        "DAGSTER_PG_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_PROFILE",
    ),
    *("DBT_ENV_SECRET_TOKEN", "DBT_SELECT", "DBT_PROFILES_DIR", "DAGSTER_HOME", "path", "PATH_OF_SECRETS"),
    *("PYTHONSTARTUP", "LD_PRELOAD"),
)
SECRETS = {name: f"value-of-{name}" for name in NOT_PASSED}
SECRETS |= dict.fromkeys(("http_proxy", "HTTPS_PROXY"), f"http://{USER_OF_PROXY}@proxy:3128")


def test_dbt_gets_what_a_program_needs_and_no_secret() -> None:
    needed = {
        "PATH": "/bin",
        "LANG": "de_DE.UTF-8",
        "LC_ALL": "C",
        "TZ": "UTC",
        "HTTP_PROXY": "http://proxy:3128",
    }
    found = dbt_environment(HOME, {**needed, **SECRETS})
    assert found.items() >= needed.items()
    assert not set(found.values()) & set(SECRETS.values())
    assert found["FLOE_HOME"] == "/home/floe" and found["DBT_VERSION_CHECK"] == "false"


@given(st.dictionaries(st.from_regex(r"[A-Z_]{1,20}", fullmatch=True), st.text(min_size=1)), st.data())
def test_a_further_variable_is_passed_by_its_name_alone(environ: dict[str, str], data: st.DataObject) -> None:
    names = set(data.draw(st.lists(st.sampled_from(sorted(environ))))) if environ else set()
    always = passed_variables(environ)
    found = passed_variables(environ, names)
    assert found.keys() == always.keys() | names
    assert all(environ[name] == value for name, value in found.items())


def test_settings_of_ours_win_over_what_is_listed() -> None:
    environ = {"FLOE_HOME": "/elsewhere", "DBT_VERSION_CHECK": "true"}
    found = dbt_environment(HOME, environ, names=environ)
    assert found["FLOE_HOME"] == "/home/floe" and found["DBT_VERSION_CHECK"] == "false"


LOOKING = """
import glob, os
for path in ["/proc/self/environ", f"/proc/{os.getppid()}/environ", *glob.glob("/proc/[0-9]*/environ")]:
    try:
        print(open(path, errors="replace").read())
    except OSError:
        pass
"""


def test_a_confined_process_reads_the_environment_of_no_other() -> None:
    """The kernel has to have Landlock (Linux 5.13); that the marker is seen without it shows that the look is a real one."""
    assert is_confining(), "this kernel has no Landlock: boot one with lsm=landlock to run this test"
    command = [sys.executable, "-c", LOOKING]
    environ = passed_variables() | {"MINE": "my-own-value"}
    seen = {
        kind: _from_a_process_with_a_secret(asked, environ)
        for kind, asked in (("free", command), ("confined", confined(command)))
    }
    assert "my-own-value" in seen["free"] and "marker-of-a-secret" in seen["free"]
    assert "my-own-value" in seen["confined"] and "marker-of-a-secret" not in seen["confined"]


def _from_a_process_with_a_secret(command: list[str], environ: dict[str, str]) -> str:
    code = "import json, subprocess, sys; print(subprocess.run(json.loads(sys.argv[1]), env=json.loads(sys.argv[2]), "
    code += "capture_output=True, text=True).stdout)"
    import json

    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(command), json.dumps(environ)],
        env={**os.environ, "CREDENTIAL": "marker-of-a-secret"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_a_confined_process_works_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    code = (
        "import os, pathlib, subprocess, sys\n"
        "os.chdir(sys.argv[1])\n"
        "pathlib.Path('a/x').write_text('1'); os.rename('a/x', 'b/x'); os.link('b/x', 'a/y')\n"
        "print(subprocess.run(['cat', 'a/y'], capture_output=True, text=True).stdout, os.getpid() == os.getpgrp())\n"
    )
    done = subprocess.run(
        confined([sys.executable, "-c", code, str(tmp_path)]), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "True"]


@pytest.mark.parametrize(
    "name",
    [
        "DBT_SELECT",
        "DBT_PROFILES_DIR",
        "DBT_ENV_SECRET_FLOE_TRINO_TOKEN",
        "FLOE_HOME",
        "A-B",
        "1A",
        "${A}",
        "",
    ],
)
def test_names_that_decide_how_dbt_works_cannot_be_listed(name: str) -> None:
    with pytest.raises(ValidationError):
        ManifestGovernance.model_validate({"environment": [name]})


def found(product: Path) -> list[tuple[str, str | None, int | None, str | None]]:
    result = validate_product(product, documents_only=True)
    return [
        (each.code, each.file, each.line, each.found)
        for each in result.findings
        if "environment" in each.code
    ]


def layers(shop: Path, *lists: Any) -> None:
    """Manifests from the outermost to the nearest one, each with its `governance.environment`."""
    for number, names in enumerate(reversed(lists)):
        is_root = number == len(lists) - 1
        text = MANIFEST.replace("test-platform", f"layer-{number}")
        text += (
            "scope: enterprise\n"
            if is_root
            else f"scope: domain\nparent_manifest: parent-{number + 1}.yaml\n"
        )
        text += (
            f"governance: {{environment: [{', '.join(names)}]}}\n"
            if names is not None
            else "governance: {}\n"
        )
        (shop.parent / (f"parent-{number}.yaml" if number else "manifest.yaml")).write_text(text)


@pytest.mark.parametrize(
    ("lists", "refused"),
    [
        ([None], ["REGION", "TENANT"]),
        ([["REGION"]], ["TENANT"]),
        ([["REGION", "TENANT"]], []),
        ([["REGION", "TENANT"], None], []),
        # A layer narrows what those around it allow, and never widens it.
        ([["REGION"], ["REGION", "TENANT"]], ["TENANT"]),
        ([["REGION", "TENANT"], ["TENANT"], None], ["REGION"]),
        ([["REGION", "TENANT"], []], ["REGION", "TENANT"]),
    ],
)
def test_a_product_reads_what_every_layer_of_the_platform_allows(
    shop: Path, lists: list[Any], refused: list[str]
) -> None:
    layers(shop, *lists)
    spec = (shop / "floe.yaml").read_text()
    (shop / "floe.yaml").write_text(f"{spec}environment:\n  - REGION\n  - TENANT\n")
    first = len(spec.splitlines()) + 2
    lines = {"REGION": first, "TENANT": first + 1}
    assert found(shop) == [
        ("environment-not-allowed", "shop/floe.yaml", lines[name], name) for name in refused
    ]


def test_a_credential_of_the_platform_can_be_given_to_nobody(shop: Path) -> None:
    (shop.parent / "manifest.yaml").write_text(
        MANIFEST
        + "plugins:\n"
        + "  catalog: {type: rest, config: {uri: 'http://127.0.0.1:1', warehouse: w, token: {env: CATALOG_TOKEN}}}\n"
        + "governance:\n  environment:\n    - REGION\n    - CATALOG_TOKEN\n"
    )
    assert found(shop) == [
        ("environment-not-allowed", "manifest.yaml", len(MANIFEST.splitlines()) + 6, "CATALOG_TOKEN")
    ]
