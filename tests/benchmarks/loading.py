"""Loading definitions in a fresh process, against plain `@dbt_assets`."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from tests.benchmarks.projects import Project, floe, generate, seconds
from tests.benchmarks.report import Row

OURS = """
from floe_dagster import load_product_definitions
defs = load_product_definitions({folder!r})
assets = {{k for k in defs.get_repository_def().asset_graph.get_all_asset_keys() if 'int_' in k.path[-1]}}
print(len(assets), len(defs.get_repository_def().asset_graph.asset_check_keys))
assert len(assets) == {models}
"""
PLAIN = """
from pathlib import Path
import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, dbt_assets

class Translator(DagsterDbtTranslator):
    def get_asset_spec(self, manifest, unique_id, project):
        spec = super().get_asset_spec(manifest, unique_id, project)
        return spec.replace_attributes(key=dg.AssetKey(['bench', spec.key.path[-1]]))

@dbt_assets(manifest=Path({manifest!r}), dagster_dbt_translator=Translator())
def models(context, dbt: DbtCliResource):
    yield from dbt.cli(['build'], context=context).stream()

defs = dg.Definitions(assets=[models], resources={{'dbt': DbtCliResource(project_dir={folder!r}, dbt_executable={dbt!r})}})
assets = defs.get_repository_def().asset_graph.get_all_asset_keys()
print(len(assets), len(defs.get_repository_def().asset_graph.asset_check_keys))
assert len(assets) == {models}
"""


def compare(project: Project, models: int, repeat: int = 3) -> tuple[float, float]:
    """Return the median seconds of loading ours and plain `@dbt_assets`, imports included."""
    names = {
        "folder": str(project.folder),
        "manifest": str(project.folder / "target" / "manifest.json"),
        "dbt": str(Path(sys.executable).with_name("dbt")),
        "models": models,
    }
    ours, plain = [], []
    for _ in range(repeat):
        ours.append(seconds([sys.executable, "-c", OURS.format(**names)], project.environment))
        plain.append(
            seconds([sys.executable, "-c", PLAIN.format(**names)], project.environment, cwd=project.folder)
        )
    return median(ours), median(plain)


def measure(root: Path) -> list[Row]:
    """Load 5,000 models with two tests each."""
    project = generate(root / "load", 5_000)
    seconds(floe("compile", str(project.folder)), project.environment)
    ours, plain = compare(project, 5_000)
    return [
        Row(
            "load of definitions, 5,000 models, 10,000 checks",
            f"{ours:.1f} s",
            f"{plain:.1f} s (@dbt_assets)",
            ours / plain,
            "<= 0.7",
            ours / plain <= 0.7,
        )
    ]
