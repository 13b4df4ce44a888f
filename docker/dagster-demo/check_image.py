"""Does the image hold what it promises? Run while it is built, and by anybody who wonders: `python /app/check_image.py`.

`workspace.yaml` beside this file names the code locations. For each one: the product's folder and every folder that its dbt
project shares with others are there, the platform manifest is there, the baked state is the one of exactly these sources, and the
definitions load and serve it. All that is wrong is printed, one line each; exit code 1 then. Nothing is written outside
of a temporary folder.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent
RECOMPILE = "run `make compile-demo`, then build again"


def main() -> int:
    """Check every location of the workspace; returns the exit code."""
    locations = read_locations(ROOT / "workspace.yaml")
    manifest = Path(os.environ.get("FLOE_MANIFEST", ""))
    problems = list(manifest_problems(manifest))
    with tempfile.TemporaryDirectory(prefix="floe-check-") as home:
        os.environ["FLOE_HOME"] = home
        for name, folder, module in locations:
            found = list(source_problems(folder))
            if not found and not problems:
                found = list(state_problems(folder, manifest)) or list(load_problems(folder, module))
            problems += [f"{name}: {problem}" for problem in found]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"the image is sound: {', '.join(name for name, _folder, _module in locations)}")
    return 1 if problems else 0


def read_locations(workspace: Path) -> list[tuple[str, Path, str]]:
    """Return name, folder and module of each code location.

    Args:
        workspace: Dagster's workspace file.
    """
    locations = []
    for entry in yaml.safe_load(workspace.read_text())["load_from"]:
        module = entry["python_module"]
        working_directory = workspace.parent / module["working_directory"]
        package = module["module_name"].partition(".")[0]
        locations.append((module["location_name"], working_directory / package, module["module_name"]))
    return locations


def manifest_problems(manifest: Path) -> Iterator[str]:
    """Yield what is wrong with the platform manifest that the products are served with."""
    if not manifest.is_file():
        there = sorted(path.name for path in ROOT.glob("manifests/*.yaml"))
        yield (
            f"FLOE_MANIFEST names {manifest}, which is not there; /app/manifests holds: {', '.join(there) or 'nothing'}. "
            "Copy manifests/ into the image, or correct FLOE_MANIFEST"
        )


def source_problems(folder: Path) -> Iterator[str]:
    """Yield what is missing of a product's folder and of the folders that its dbt project names."""
    from floe_dagster.compilation.sources import PROJECT_FILE, SPEC_FILE, dbt_source_folders

    if not folder.is_dir():
        yield (
            f"workspace.yaml names the product, and the image has no folder {folder}. Copy products/{folder.name}, or take "
            "the location out of docker/dagster-demo/workspace.yaml"
        )
        return
    for name in (SPEC_FILE, PROJECT_FILE, "__init__.py", "definitions.py"):
        if not os.access(folder / name, os.R_OK):
            yield f"{folder / name} is missing, or user {os.getuid()} cannot read it"
    for path in dbt_source_folders(folder):
        # Folders inside of the product may be absent on purpose; what it shares with others was named by somebody.
        if not Path(path).is_relative_to(folder) and not Path(path).is_dir():
            yield f"{PROJECT_FILE} names the folder {path}, and the image has none. Copy it beside the product"


def state_problems(folder: Path, manifest: Path) -> Iterator[str]:
    """Yield why the baked state does not stand for the sources and the manifest of the image."""
    from floe_dagster.compilation.bundle import ARTIFACT, BAKED_BUNDLE, DBT_MANIFEST, Bundle, BundleError
    from floe_dagster.compilation.sources import source_state

    target = folder / "target"
    missing = [name for name in (BAKED_BUNDLE, ARTIFACT, DBT_MANIFEST) if not (target / name).is_file()]
    if missing:
        yield f"nothing is compiled: {target} lacks {', '.join(missing)}; {RECOMPILE}"
        return
    try:
        bundle = Bundle.open(target / BAKED_BUNDLE)
        for name in (ARTIFACT, DBT_MANIFEST):
            if (target / name).read_bytes() != bundle.read(name):
                yield f"{target / name} is not the one of {BAKED_BUNDLE}; {RECOMPILE}"
        state = source_state(folder, manifest=manifest)
        if state.digest != bundle.digest:
            differing = ", ".join(differences(bundle, state)) or f"versions (here {versions()})"
            yield f"the state in {target} was compiled from other sources; what differs: {differing}; {RECOMPILE}"
    except BundleError as error:
        yield f"{error} ({RECOMPILE})"


def differences(bundle: Any, state: Any) -> Iterator[str]:
    """Yield the names of files in which the sources of a bundle and those present differ."""
    from floe_dagster.compilation.bundle import SOURCES, SourceLayout

    layout = SourceLayout(bundle.slug, [file.name for file in state.files])
    present = {f"{SOURCES}/{layout.place(file.name)}": file for file in state.files}
    with zipfile.ZipFile(bundle.path) as archive:
        compiled = {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if name.startswith(f"{SOURCES}/")
        }
    for name in sorted(compiled.keys() | present.keys()):
        if name not in present:
            yield f"{name.removeprefix(f'{SOURCES}/')} (gone)"
        elif compiled.get(name) != present[name].sha256:
            yield f"{present[name].name} ({'changed' if name in compiled else 'new'})"
    layers = [layer["sha256"] for layer in bundle.report().get("manifest_chain", [])]
    if layers != [file.sha256 for file in state.manifests]:
        yield f"the platform manifest {state.manifests[0].path if state.manifests else '(none)'}"


def versions() -> str:
    """Return the versions that are part of a state's identity."""
    return ", ".join(
        f"{name} {metadata.version(name)}" for name in ("floe-dagster", "dbt-core", "dbt-duckdb")
    )


def load_problems(folder: Path, module: str) -> Iterator[str]:
    """Yield why a location's module does not load, or what it lacks."""
    import dagster as dg

    sys.path.insert(0, str(folder.parent))
    try:
        definitions = importlib.import_module(module).defs
        repository = definitions.get_repository_def()
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        line = getattr(error, "lineno", None) or place.lineno
        file = getattr(error, "filename", None) or place.filename
        yield f"{module} does not load: {type(error).__name__}: {error} ({file}:{line})"
        return
    finally:
        sys.path.pop(0)
    if not isinstance(definitions, dg.Definitions):
        yield f"{module}.defs is no dagster.Definitions"
    elif not repository.has_job(f"{folder.name}_run"):
        yield f"{module} loads without the job {folder.name}_run, so it does not serve the baked state"


if __name__ == "__main__":
    raise SystemExit(main())
