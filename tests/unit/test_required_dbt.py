"""Which dbt a project asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from floe_dagster.compilation import required_dbt
from floe_dagster.compilation.documents import read_document


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (">=1.0.0", None),
        ([">=1.11.0", "<1.12.0"], None),
        (">=1.0.0,<2.0.0", None),
        ("1.11.16", None),
        ("=1.11.16", None),
        ("{{ env_var('V') }}", None),
        (">=9.0.0", "another dbt than the 1.11.16"),
        ([">=1.0.0", "<1.11.16"], "another dbt than the 1.11.16"),
        ("1.11.15", "another dbt than the 1.11.16"),
        ("latest", "is no range of versions"),
        (1.11, "is no range of versions"),
    ],
)
def test_a_project_gets_the_dbt_that_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Any, message: str | None
) -> None:
    monkeypatch.setattr(required_dbt.metadata, "version", lambda _name: "1.11.16")
    path = tmp_path / "dbt_project.yml"
    path.write_text(yaml.safe_dump({"name": "shop", "require-dbt-version": asked}, sort_keys=False))
    found = required_dbt.check_required_dbt(read_document(path, root=tmp_path))
    assert [(finding.line, message in finding.message) for finding in found if message] == [(2, True)] * bool(
        message
    )
    assert bool(found) == bool(message)
