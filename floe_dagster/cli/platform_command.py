"""`floe-dagster platform bootstrap`, `platform check` and `platform wait`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from floe_dagster.cli.terminal import colour, print_findings, print_json, table
from floe_dagster.home import FloeHome, find_project_root

DEFAULT_MANIFEST = Path("manifests/local.yaml")


def run(options: argparse.Namespace) -> int:
    """Run one of the three."""
    from floe_dagster.compilation.inheritance import load_manifest_chain
    from floe_dagster.findings import InputError

    named = options.manifest or os.environ.get("FLOE_MANIFEST", "").strip() or DEFAULT_MANIFEST
    path = Path(os.path.abspath(named))
    try:
        chain = load_manifest_chain(path, root=find_project_root(path))
    except InputError as error:
        print_findings(error.findings)
        return 2
    print_findings(finding for finding in chain.findings if finding.severity == "error")
    if chain.merged is None:
        return 2
    if options.action == "bootstrap":
        return _bootstrap(options, chain.merged)
    if options.action == "wait":
        return _wait(options, chain.merged)
    return _check(options, chain.merged, path)


def _bootstrap(options: argparse.Namespace, manifest: Any) -> int:
    from floe_dagster.platform.bootstrap import Bootstrap
    from floe_dagster.platform.steps import Step
    from floe_dagster.platform.waiting import PlatformError

    def say(step: Step) -> None:
        if options.format == "text":
            style = {"made": "ok", "changed": "ok", "there": "dim", "skipped": "dim"}.get(
                step.outcome, "info"
            )
            note = f"  ({step.note})" if step.note else ""
            print(f"{colour(f'{step.outcome:12}', style)} {step.what}{note}", flush=True)

    bootstrap = Bootstrap(
        manifest,
        dry_run=options.dry_run,
        wait_seconds=options.wait,
        namespaces=tuple(options.namespace or ()),
        credentials_file=options.credentials_file,
        management_url=options.management_url,
        say=say,
    )
    try:
        bootstrap.run()
    except PlatformError as error:
        if options.format == "json":
            print_json({"error": str(error), "steps": [asdict(step) for step in bootstrap.steps]})
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.format == "json":
        print_json({"steps": [asdict(step) for step in bootstrap.steps]})
    else:
        made = sum(step.outcome in ("made", "changed") for step in bootstrap.steps)
        would = sum(step.outcome.startswith("would") for step in bootstrap.steps)
        print(f"{would} to do" if options.dry_run else f"{made} done, the rest was there")
    return 0


def _wait(options: argparse.Namespace, manifest: Any) -> int:
    from floe_dagster.platform.readiness import PARTS, wait_until_ready
    from floe_dagster.platform.waiting import PlatformError

    try:
        wait_until_ready(
            manifest,
            parts=(options.only,) if options.only else PARTS,
            seconds=options.wait,
            environ=os.environ,
            say=lambda line: print(line, flush=True),
        )
    except PlatformError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _check(options: argparse.Namespace, manifest: Any, path: Path) -> int:
    from floe_dagster.compilation.builder import listed_engines, resolved_plugins
    from floe_dagster.platform.check import check_platform

    plugins = resolved_plugins(manifest, listed_engines(manifest))
    checks = check_platform(
        plugins.catalog,
        plugins.storage,
        engines=plugins.engines_by_field(),
        home=FloeHome.locate(path),
        namespaces=tuple(options.namespace or ()),
    )
    healthy = all(check.passed for check in checks)
    if options.format == "json":
        print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
        return 0 if healthy else 1
    rows = []
    for check in checks:
        verdict = colour("ok", "ok") if check.passed else colour("FAILED", "error")
        rows.append([check.name, verdict, f"{check.seconds:.2f}", check.message])
    print(table(("check", "", "seconds", "seen"), rows, right=(2,)))
    for check in checks:
        if not check.passed:
            print(f"\n{check.name}: {check.fix}", file=sys.stderr)
    return 0 if healthy else 1
