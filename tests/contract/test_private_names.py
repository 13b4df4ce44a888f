"""Private names of libraries: each behind one door, and still there in the version that is installed.

After an upgrade this says which name is gone, and where it is used.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import UPathDefsStateStorage
from dagster._core.instance import MayHaveInstanceWeakref
from opentelemetry.sdk.trace import TracerProvider
from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.io.pyarrow import ArrowScan
from pyiceberg.table import Transaction
from pyiceberg.table.update.snapshot import UpdateSnapshot, _OverwriteFiles, _SnapshotProducer

from floe_dagster.definitions import dagster_private
from floe_dagster.definitions.dagster_private import ConsolidatedSqliteEventLogStorage, DefinitionsLoadContext
from tests.conftest import ROOT

DOORS = {
    "dagster": "floe_dagster/definitions/dagster_private.py",
    "pyiceberg": "floe_dagster/iceberg/pyiceberg_private.py",
}
"""The module that may import private names of a library."""
OVERRIDDEN = {
    "floe_dagster/iceberg/overwriting.py": {"pyiceberg.table.update.snapshot._OverwriteFiles"},
}
"""What a class of ours extends, where it does."""
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "floe_dagster/iceberg/pyiceberg_private.py": {
        "_table": Transaction,
        "_updates": Transaction,
        "_apply": Transaction,
        "_snapshot_producers": Transaction,
        "_clean_all_uncommitted": _SnapshotProducer,
        "_record_batches_from_scan_tasks_and_deletes": ArrowScan,
        "_transaction": UpdateSnapshot,
        "_io": UpdateSnapshot,
        "_branch": UpdateSnapshot,
        "_snapshot_properties": UpdateSnapshot,
        "_supported_endpoints": RestCatalog,
    },
    "floe_dagster/iceberg/overwriting.py": {
        "_existing_manifests": _OverwriteFiles,
        "_build_delete_files_partition_predicate": _OverwriteFiles,
        "_deleted_data_files": _OverwriteFiles,
        "_transaction": _OverwriteFiles,
        "_snapshot_id": _OverwriteFiles,
        "_compression": _OverwriteFiles,
    },
    "floe_dagster/iceberg/rest.py": {
        "_response_to_table": RestCatalog,
        "_response_to_staged_table": RestCatalog,
        "_config_headers": RestCatalog,
        "_session": RestCatalog,
        "_refresh_token": RestCatalog,
    },
    "floe_dagster/definitions/state.py": {
        "_repository_load_data": DefinitionsLoadContext,
        "_sanitize_key": UPathDefsStateStorage,
    },
    "deploy/production/forget_state.py": {"_sanitize_key": UPathDefsStateStorage},
    "floe_dagster/definitions/event_log.py": {
        "_conn_string": ConsolidatedSqliteEventLogStorage,
        "_connect": ConsolidatedSqliteEventLogStorage,
    },
    "floe_dagster/definitions/queue/coordinator.py": {"_instance": MayHaveInstanceWeakref},
    "floe_dagster/observability/telemetry.py": {"_disabled": TracerProvider},
}
"""Attributes of objects of libraries that a module of ours reads, sets or overrides, and whose they are."""
PACKAGES = (
    "dagster",
    "dagster_dbt",
    "dagster_k8s",
    "pyiceberg",
    "duckdb",
    "dbt",
    "opentelemetry",
    "openlineage",
)


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("floe_dagster", "deploy"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text())


def private_imports(tree: ast.Module) -> set[str]:
    """Return the names of the libraries that have a part beginning with `_`, by which they are private."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {
            name
            for name in names
            if name.split(".")[0] in PACKAGES
            and any(part.startswith("_") and not part.startswith("__") for part in name.split("."))
        }
    return found


@pytest.mark.parametrize("name", dagster_private.NAMES)
def test_dagster_still_has(name: str) -> None:
    assert getattr(dagster_private, name) is not None


def test_a_name_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(dagster_private.NAMES, "Gone", "dagster._core.storage.tags")
    with pytest.raises(ImportError, match=r"no dagster\._core\.storage\.tags\.Gone"):
        _ = dagster_private.Gone


def test_private_names_are_imported_in_one_place() -> None:
    for file, tree in sources():
        elsewhere = {
            name
            for name in private_imports(tree) - OVERRIDDEN.get(file, set())
            if DOORS.get(name.split(".")[0]) != file
        }
        assert not elsewhere, f"{file}: {elsewhere} belong into {sorted(DOORS.values())}"


@pytest.mark.parametrize(
    ("file", "attribute"), [(file, attribute) for file, known in ATTRIBUTES.items() for attribute in known]
)
def test_the_library_still_has_the_attribute(file: str, attribute: str) -> None:
    owner = ATTRIBUTES[file][attribute]
    # One that is only set in `__init__` is no attribute of the class.
    said = "\n".join(inspect.getsource(one) for one in owner.__mro__ if one is not object)
    assert hasattr(owner, attribute) or f"self.{attribute}" in said, f"{owner} of {file} has no {attribute}"


def test_every_private_attribute_is_known() -> None:
    for file, tree in sources():
        unknown = foreign_attributes(tree) - ATTRIBUTES.get(file, {}).keys()
        assert not unknown, f"{file}: whose are {unknown}?"


def foreign_attributes(tree: ast.Module) -> set[str]:
    """Return the attributes with `_` that the module uses and does not make itself."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    own |= {
        node.attr
        for node in used
        if isinstance(node.ctx, ast.Store) and ast.unparse(node.value) in ("self", "cls")
    }
    own |= {
        statement.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for statement in node.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    # Of the standard library, and of modules of ours.
    known = {"_exit", "_replace"}
    return {
        node.attr
        for node in used
        if node.attr.startswith("_") and not node.attr.startswith("__") and node.attr not in own | known
    }


def test_a_private_name_is_found(tmp_path: Path) -> None:
    tree = ast.parse(
        "from dagster._core import x\nimport pyiceberg._y\nfrom dbt import __version__, _z\na._b\n"
    )
    assert private_imports(tree) == {"dagster._core.x", "pyiceberg._y", "dbt._z"}
    assert foreign_attributes(tree) == {"_b"}
