"""Names of dbt that its documentation does not give: an upgrade that takes one away is told here, by name."""

from __future__ import annotations

from importlib import import_module

import pytest

NAMES = (
    ("dbt.contracts.graph.manifest", "Manifest.from_msgpack"),
    ("dbt.contracts.graph.manifest", "Manifest.build_parent_and_child_maps"),
    ("dbt.contracts.graph.manifest", "Manifest.build_group_map"),
    ("dbt.contracts.graph.manifest", "Manifest.build_flat_graph"),
    ("dbt.parser.manifest", "extended_mashumuro_decoder"),
    ("dbt.artifacts.schemas.run", "RunExecutionResult.write"),
    ("dbt.adapters.factory", "FACTORY.load_plugin"),
    ("dbt.adapters.factory", "get_include_paths"),
    ("dbt_common.clients.jinja", "get_environment"),
    ("dbt_common.clients.jinja", "extract_toplevel_blocks"),
    ("dbt.cli.main", "cli.commands"),
    ("dbt.task.build", "BuildTask"),
    ("dbt.contracts.project", "Configuration.json_schema"),
    ("dbt.contracts.project", "PackageConfig.json_schema"),
    ("dbt.contracts.project", "ProfileConfig.json_schema"),
    ("dbt.contracts.project", "Project.json_schema"),
    ("dbt.contracts.project", "ProjectFlags.json_schema"),
)


@pytest.mark.parametrize(("module", "name"), NAMES)
def test_dbt_still_has(module: str, name: str) -> None:
    found = import_module(module)
    for part in name.split("."):
        found = getattr(found, part)


def test_dbt_still_keeps_what_it_parsed_under_this_name() -> None:
    from dbt.constants import PARTIAL_PARSE_FILE_NAME

    from floe_dagster.compilation.parse_state import PARTIAL_PARSE

    assert PARTIAL_PARSE == PARTIAL_PARSE_FILE_NAME


def test_a_manifest_that_is_none_is_refused_before_anything_is_made_of_it() -> None:
    from floe_dagster.compilation.dbt_command import load_manifest
    from floe_dagster.compilation.dbt_forks import NO_MANIFEST

    with pytest.raises(Exception, match="nodes"):
        load_manifest(NO_MANIFEST)
