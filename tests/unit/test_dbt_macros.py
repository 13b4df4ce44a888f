"""dbt's own macros, parsed once: a project that is parsed with them is the same, and dbt does take them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = """\
import json, sys
from dbt.adapters.factory import FACTORY
from dbt.cli.main import dbtRunner
from jinja2 import Environment

from floe_dagster.compilation.dbt_macros import parse_dbts_own_macros

folder = sys.argv[1]
FACTORY.load_plugin("duckdb")
asked = []
plain = Environment.parse


def counted(self, source, *rest):
    asked.append(source)
    return plain(self, source, *rest)


for name in ("before", "after"):
    if name == "after":
        Environment.parse = counted
        parse_dbts_own_macros(["duckdb"])
        asked.clear()
    args = ["-q", "parse", "--no-partial-parse", "--project-dir", folder, "--profiles-dir", folder]
    assert dbtRunner().invoke([*args, "--target-path", f"{folder}/{name}"]).success
print(json.dumps(asked))
"""
PROFILES = "shop: {target: dev, outputs: {dev: {type: duckdb, path: shop.duckdb}}}\n"
OWN = "{% macro own(x) %}{{ dbt.dateadd('day', 1, x) }}{% endmacro %}\n"


def manifest(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    del loaded["metadata"]
    for section in loaded.values():
        for node in section.values() if isinstance(section, dict) else ():
            if isinstance(node, dict):
                node.pop("created_at", None)
    return loaded


@pytest.mark.slow
def test_the_manifest_is_the_same_and_only_the_projects_macros_are_parsed(shop: Path) -> None:
    (shop / "profiles.yml").write_text(PROFILES)
    (shop / "macros").mkdir()
    (shop / "macros" / "own.sql").write_text(OWN)
    (shop / "models" / "orders.sql").write_text("select {{ own('now()') }} as day\n")
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(shop)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert manifest(shop / "before" / "manifest.json") == manifest(shop / "after" / "manifest.json")
    parsed = json.loads(done.stdout.splitlines()[-1])
    assert OWN.strip() in parsed
    assert not [text for text in parsed if text.startswith("{% macro default__")], (
        "dbt's own were parsed again"
    )
