"""`floe-dagster run`: compile, run in Dagster, show what was published."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from floe_dagster.cli.command import Command
from floe_dagster.cli.dagster_home import make_dagster_home, named_dagster_home
from floe_dagster.cli.options import add_format, add_manifest, add_products
from floe_dagster.cli.terminal import colour, print_findings, print_json, product_dirs, table

if TYPE_CHECKING:
    import dagster as dg

    from floe_dagster.compilation.bundle import Bundle
    from floe_dagster.compilation.result import CompileResult
    from floe_dagster.home import FloeHome
    from floe_dagster.schemas.product_index import ProductIndex

_PROGRESS = ("building on", "dbt parses", "published", "restored", "not in the", "waiting", "withheld")
_COLUMNS = ("product", "assets", "passed", "warned", "failed", "tables", "rows", "seconds")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what `run` takes."""
    add_products(parser)
    add_manifest(parser)
    parser.add_argument("--full-refresh", action="store_true", help="rebuild incremental models and seeds")
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    """Compile and run each product; a broken one does not stop the others, and the report is always printed."""
    from floe_dagster.compilation.dbt_server import server

    # Compiled or not, dbt will be needed: it is imported while Dagster is.
    server.warm()
    exit_code = 0
    rows: list[dict[str, Any]] = []
    tables: list[dict[str, Any]] = []
    published_dir = Path()
    try:
        for name in product_dirs(options.products):
            product_dir = Path(os.path.abspath(name))
            summary, published, code = _compile_and_run(product_dir, options)
            rows.append(summary)
            if published:
                tables, published_dir = tables + published, product_dir
            exit_code = max(exit_code, code)
    except BaseException:
        if rows:
            _report(options, rows, tables, published_dir)
        raise
    _report(options, rows, tables, published_dir)
    return exit_code


def _compile_and_run(
    product_dir: Path, options: argparse.Namespace
) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Return the product's row of the report, its published tables, and the exit code."""
    from floe_dagster.cli.run_report import nothing_published
    from floe_dagster.compilation.outputs import outputs_current
    from floe_dagster.compilation.result import NOTHING_PUBLISHED
    from floe_dagster.definitions.compiling import compile_product
    from floe_dagster.home import FloeHome

    home = FloeHome.locate(product_dir)
    _say(f"{product_dir.name}: compiling")
    result = compile_product(product_dir, manifest=options.manifest, home=home)
    # That there is no table, the report says at its end, where it is looked for.
    print_findings(finding for finding in result.findings if finding.code != NOTHING_PUBLISHED)
    if result.bundle is None or result.bundle_path is None:
        why = nothing_published(result, home)
        return _without_run(result, "not compiled", nothing_published=why), [], result.exit_code
    if not outputs_current(product_dir / "target", result.digest, home):
        _write_outputs(result.bundle_path, product_dir / "target", home)
    try:
        summary, published = _run_product(result, result.bundle, product_dir, home, options.full_refresh)
    except OSError:
        raise  # the folder that all products share, which `main` explains
    except Exception as error:  # whatever it is, the other products run, and the report names it
        log = home.logs_dir(result.slug) / "run.log"
        with open(log, "a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        said = f"{type(error).__name__}: {error}"
        _say(f"{result.name}: {colour(said, 'error', sys.stderr)}; the traceback is in {log}")
        # What came of it before that, nobody knows here.
        return _without_run(result, "not run", error=said, nothing_published=None), [], 1
    return summary, published, 0 if summary["success"] else 1


def _without_run(result: CompileResult, failed: str, **said: Any) -> dict[str, Any]:
    return {"product": result.name, "success": False, "failed": failed, **said}


def _report(
    options: argparse.Namespace,
    rows: list[dict[str, Any]],
    tables: list[dict[str, Any]],
    published_dir: Path,
) -> None:
    from floe_dagster.cli.run_report import next_steps

    if options.format == "json":
        print_json({"products": rows, "tables": tables})
        return
    print()
    print(table(_COLUMNS, [[row.get(name) for name in _COLUMNS] for row in rows], right=range(1, 8)))
    if tables:
        print()
        several = len({entry["engine"] for entry in tables}) > 1
        names = ("table", "rows", "snapshot", *(("engine",) if several else ()))
        print(table(names, [[entry[name] for name in names] for entry in tables], right=(1,)))
        print("\n" + "\n".join(next_steps(tables[-1]["table"], published_dir)))
    for why in (row["nothing_published"] for row in rows if row["nothing_published"]):
        print(f"\n{colour(why['reason'], 'warning')}\n    fix:     {why['fix']}")


def _write_outputs(bundle_path: Path, output_dir: Path, home: FloeHome) -> None:
    from floe_dagster.compilation.outputs import write_outputs

    try:
        write_outputs(bundle_path, output_dir, home)
    except OSError as error:
        # In an image the product's folder is read-only, and a run needs nothing of what lies in `target/`.
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        _say(f"{output_dir} cannot be written, so it stays as it is")


def _run_product(
    result: CompileResult, bundle: Bundle, product_dir: Path, home: FloeHome, full_refresh: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    make_dagster_home(home, product_dir)
    import dagster as dg

    from floe_dagster.cli.run_report import nothing_published
    from floe_dagster.definitions.command_runs import (
        command_tags,
        end_lost_runs,
        failure_reasons,
        turn,
        was_interrupted,
        withheld_tables,
    )
    from floe_dagster.definitions.factory import build_product_definitions
    from floe_dagster.definitions.observing.process import is_observed, observe
    from floe_dagster.definitions.state import store_bundle

    begun = time.monotonic()
    logs = home.logs_dir(result.slug)
    logs.mkdir(parents=True, exist_ok=True)
    run_config: dict[str, Any] = {"loggers": {"progress": {"config": {}}}}
    if full_refresh:
        run_config["ops"] = {f"{result.slug}_dbt": {"config": {"full_refresh": True}}}
    artifact, index = bundle.artifact(), bundle.index()
    observed = partial(observe, artifact, index, product_dir, home)
    with (
        named_dagster_home(home),
        turn(result.slug, home, lambda text: _say(f"{result.name}: {text}")),
        dg.DagsterInstance.get() as instance,
        open(logs / "run.log", "w", encoding="utf-8") as file,
    ):
        for run_id in end_lost_runs(
            instance, result.slug, home, observed if is_observed(artifact.observability) else None
        ):
            _say(f"{result.name}: run {run_id[:8]} was killed; it is marked as failed")
        store_bundle(instance, result.slug, bundle, home)
        # dbt's own lines go to the log file; progress comes from Dagster's events.
        with _kept_stderr() as stderr, contextlib.redirect_stdout(file):
            definitions = dg.Definitions.merge(
                build_product_definitions(bundle, product_dir=product_dir, home=home, launched=False),
                dg.Definitions(loggers={"progress": _progress_logger(result.name, stderr)}),
            )
            outcome = definitions.resolve_job_def(f"{result.slug}_run").execute_in_process(
                instance=instance,
                raise_on_error=False,
                run_config=run_config,
                tags=command_tags(home),
            )
    if was_interrupted(outcome):
        raise KeyboardInterrupt
    seconds = time.monotonic() - begun
    summary, tables = _summary(result, index, outcome, seconds)
    if not tables:
        summary["nothing_published"] = nothing_published(
            result, home, failure_reasons(outcome), withheld_tables(outcome)
        )
    return summary, tables


def _summary(
    result: CompileResult, index: ProductIndex, outcome: dg.ExecuteInProcessResult, seconds: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    from floe_dagster.definitions.command_runs import failure_reasons

    engines = {asset.name: asset.engine for asset in index.assets}
    materializations = outcome.asset_materializations_for_node(f"{result.slug}_dbt")
    evaluations = outcome.get_asset_check_evaluations()
    tables: list[dict[str, Any]] = []
    for event in materializations:
        found = {name: entry.value for name, entry in event.metadata.items() if hasattr(entry, "value")}
        if "iceberg/snapshot_id" in found:
            tables.append(
                {
                    "table": found.get("dagster/table_name") or ".".join(event.asset_key.path),
                    "rows": found.get("dagster/row_count"),
                    "snapshot": found["iceberg/snapshot_id"],
                    "engine": engines.get(event.asset_key.path[-1]),
                }
            )
    warned = [e for e in evaluations if not e.passed and e.severity.value == "WARN"]
    failed = [e for e in evaluations if not e.passed and e.severity.value == "ERROR"]
    summary = {
        "product": result.name,
        "success": outcome.success,
        "error": "\n".join(failure_reasons(outcome)) or None,
        "run_id": outcome.run_id,
        "assets": len(materializations),
        "passed": sum(e.passed for e in evaluations),
        "warned": len(warned),
        "failed": len(failed),
        "tables": len(tables),
        "rows": sum(entry["rows"] or 0 for entry in tables),
        "nothing_published": None,
        "seconds": round(seconds, 1),
    }
    return summary, tables


@contextlib.contextmanager
def _kept_stderr() -> Iterator[TextIO]:
    """Give standard error as it is outside of a step.

    What is written to its descriptor within one, Dagster keeps in a file, and shows through a `tail` that it ends with the step:
    the last lines, the reason of a failure among them, may never be seen.
    """
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except OSError:  # No file, as where somebody reads what is printed from memory.
        yield sys.stderr
        return
    with open(descriptor, "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors) as kept:
        yield kept


def _progress_logger(name: str, stream: TextIO) -> Any:
    import dagster as dg

    from floe_dagster.definitions.command_runs import failure_reason, retry_reason

    class Progress(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            meta = getattr(record, "dagster_meta", None) or {}
            event = meta.get("dagster_event")
            if event is None and record.levelno < logging.INFO:
                return
            if event is not None and record.levelno < logging.ERROR:
                for text in (retry_reason(event) or "").splitlines():
                    _progress(name, text.strip(), logging.WARNING, stream)
                return
            said = str(meta.get("orig_message") or record.getMessage())
            # Dagster's own message says that a step failed, its event why.
            reason = failure_reason(event) if event is not None else None
            for text in (*said.splitlines(), *(reason or "").splitlines()):
                _progress(name, text.strip(), record.levelno, stream)

    @dg.logger
    def progress(_context: dg.InitLoggerContext) -> logging.Logger:
        # That a step is tried again is one of Dagster's events, all of which are for debugging.
        made = logging.Logger(f"floe-progress-{name}", level=logging.DEBUG)
        made.addHandler(Progress())
        return made

    return progress


def _progress(name: str, text: str, level: int, stream: TextIO) -> None:
    if not text:
        return
    if level >= logging.WARNING or re.search(r"\b(ERROR|FAIL|WARN)\b", text):
        is_error = level >= logging.ERROR or (level < logging.WARNING and " WARN " not in text)
        style = "error" if is_error else "warning"
        _say(f"{name}: {colour(text, style, stream)}", stream)
    elif text.startswith(_PROGRESS) or " OK " in text:
        _say(f"{name}: {text}", stream)


def _say(text: str, stream: TextIO | None = None) -> None:
    print(text, file=stream or sys.stderr, flush=True)


COMMAND = Command(
    text="compile products, run them in Dagster, print what was published, or why nothing was",
    examples="""
floe-dagster run
floe-dagster run products/customer_360 --full-refresh
""",
    run=run,
    add_options=add_options,
)
