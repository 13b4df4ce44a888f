"""What the hashed requirement files hold. `make lock-check`, a part of `make lint`, holds them to `pyproject.toml`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.lock_check import FILES, ROOT, stale_lines


@pytest.mark.slow
def test_a_stale_lock_is_seen(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    text = (ROOT / "pyproject.toml").read_text()
    project.write_text(text.replace('"sqlglot>=30"', '"sqlglot>=30", "xxhash>=3"', 1))
    assert any("xxhash" in line for line in stale_lines("requirements.txt", project))


@pytest.mark.parametrize("name", FILES)
def test_the_lock_has_hashes_and_no_addresses(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pinned and all(line.endswith("\\") for line in pinned)


def test_nothing_slows_down_every_process_that_imports_dbt() -> None:
    # With this one, jsonschema builds its grammars whenever it is imported, which takes several seconds.
    assert find_spec("rfc3987_syntax") is None
