"""What `floe-dagster run` says at its end: why a product has no table, and where to look next."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from floe_dagster.cli.dagster_home import VARIABLE, dagster_home
from floe_dagster.compilation.result import NOTHING_PUBLISHED, CompileResult
from floe_dagster.home import FloeHome, display_path, find_project_root

SHOWN_TABLES = 3


def nothing_published(
    result: CompileResult,
    home: FloeHome,
    reasons: Sequence[str] = (),
    withheld: Mapping[str, str] | None = None,
) -> dict[str, str | None]:
    """Return why a product's run published nothing, and what to do, as `reason` and `fix`.

    Args:
        result: Of its compilation.
        home: The writable folder.
        reasons: Why the run failed; none where it did not.
        withheld: Why single tables were not published, by name.
    """
    finding = next((finding for finding in result.findings if finding.code == NOTHING_PUBLISHED), None)
    if result.bundle_path is None:
        reason, fix = "it does not compile", "Mend what is found, then run it again."
    elif finding is not None:
        return {"reason": finding.message, "fix": finding.fix}
    elif withheld:
        names = sorted(withheld)
        told = "; ".join(f"{name}: {withheld[name]}" for name in names[:SHOWN_TABLES])
        more = f"; and {len(names) - SHOWN_TABLES} more" if len(names) > SHOWN_TABLES else ""
        reason = f"everything was withheld ({told}{more})"
        fix = "Mend the models, their tests or the data, then run it again."
    elif reasons:
        reason = f"the run failed: {reasons[0].splitlines()[0]}"
        fix = f"Mend it, then run it again; all that was said is in {home.logs_dir(result.slug) / 'run.log'}."
    else:
        reason = "the run ended well, and no table came of it"
        fix = f"Look into {home.logs_dir(result.slug) / 'run.log'}."
    return {"reason": f"{result.name} published no table: {reason}", "fix": fix}


def next_steps(table: str, product_dir: Path) -> list[str]:
    """Return the commands that show what was published.

    Args:
        table: `product.model`.
        product_dir: Absolute.
    """
    shown = f"{_program('floe-dagster')} show {table}"
    if product_dir not in _found_from(Path.cwd()):
        shown += f" --product-dir {_argument(product_dir)}"
    return [
        f"look at the rows:   {shown}",
        f"look at the graph:  {_graph(product_dir)}, then open http://127.0.0.1:3000",
    ]


def _found_from(folder: Path) -> list[Path]:
    """Return where a command that is given no folder looks for products, see `terminal.product_dirs`."""
    if (folder / "floe.yaml").exists():
        return [folder]
    return [spec.parent for spec in (folder / "products").glob("*/floe.yaml")] or [
        spec.parent for spec in folder.glob("*/floe.yaml")
    ]


def _graph(product_dir: Path) -> str:
    root = find_project_root(product_dir)
    if root == Path.cwd() and Path(sys.prefix) == root / ".venv" and "\ndev:" in _text(root / "Makefile"):
        return "make dev"
    serve = f"{_program('dagster')} dev"
    if not os.environ.get(VARIABLE):
        # Without it, `dagster dev` keeps its runs in a folder that it removes, and knows none of ours.
        serve = f"{VARIABLE}={shlex.quote(str(dagster_home(FloeHome.locate(product_dir))))} {serve}"
    definitions = product_dir / "definitions.py"
    if f"{product_dir.name}.definitions" in _text(root / "workspace.yaml"):
        return f"{serve} -w {_argument(root / 'workspace.yaml')}"
    if definitions.is_file():
        return f"{serve} -f {_argument(definitions)}"
    compiled = f"{_program('floe-dagster')} compile {_argument(product_dir)} --generate-definitions"
    return f"{compiled} && {serve} -f {_argument(definitions)}"


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _argument(path: Path) -> str:
    return shlex.quote(display_path(path, Path.cwd()))


def _program(name: str) -> str:
    """Return how a command of this environment is called here: it may lie in one that is not on PATH."""
    called = Path(sys.argv[0])
    beside = called.with_name(name)
    on_path = shutil.which(name)
    if called.name != "floe-dagster" or (on_path and beside.exists() and os.path.samefile(on_path, beside)):
        return name
    return display_path(beside, Path.cwd())
