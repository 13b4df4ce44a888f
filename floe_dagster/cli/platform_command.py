"""`floe-dagster platform bootstrap`, `platform check`, `platform wait` and `platform digest`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from floe_dagster.cli.command import Command
from floe_dagster.cli.options import add_format, add_manifest, path, seconds
from floe_dagster.cli.terminal import colour, print_findings, print_json, table
from floe_dagster.home import FloeHome, find_project_root

DEFAULT_MANIFEST = Path("manifests/local.yaml")
_ENVIRONMENT = """\
environment:
  MINIO_ROOT_USER, MINIO_ROOT_PASSWORD                     who may make buckets, users and policies
  POLARIS_ROOT_CLIENT_ID, POLARIS_ROOT_CLIENT_SECRET       who may make catalogs and principals
  FLOE_STATE_ACCESS_KEY_ID, FLOE_STATE_SECRET_ACCESS_KEY   a user for Dagster's state alone, made where they are set
  and whatever the manifest refers to
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the actions and what each takes."""
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    bootstrap = actions.add_parser(
        "bootstrap",
        help="make bucket, policy, user, catalog, principal and grants, where they are missing",
        description="Make what is missing, and say so. It can be run again after any failure.",
        epilog=_ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    bootstrap.add_argument("--dry-run", action="store_true", help="only look, and say what would be done")
    bootstrap.add_argument(
        "--wait", type=seconds, default=60.0, metavar="SECONDS", help="for each service at most (default 60)"
    )
    bootstrap.add_argument(
        "--credentials-file",
        type=path,
        metavar="FILE",
        help="where credentials go that Polaris makes itself",
    )
    bootstrap.add_argument(
        "--management-url", metavar="URL", help="of Polaris, where it cannot be told from the catalog's URI"
    )
    check = actions.add_parser(
        "check",
        help="look at everything that publication needs; exit code 1 where something is wrong",
        description="Look at everything that publication needs, with the fix for what is wrong.",
    )
    wait = actions.add_parser(
        "wait",
        help="wait until the bucket exists and the catalog answers; exit code 1 where they do not in time",
        description="Wait until the bucket exists and may be used, and until the catalog answers. Nothing is made.",
        epilog="With --only state the keys are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, which reach Dagster's state alone.",
    )
    add_manifest(wait)
    wait.add_argument(
        "--wait", type=seconds, default=300.0, metavar="SECONDS", help="for all of it at most (default 300)"
    )
    wait.add_argument("--only", choices=("storage", "state", "catalog"), help="wait for one of them alone")
    digest = actions.add_parser(
        "digest",
        help="print the digest of a manifest and its parents, for FLOE_MANIFEST_SHA256",
        description="Print the digest of a manifest and its parents. FLOE_MANIFEST_SHA256 pins it: where that is set, no other "
        "manifest counts. Whatever changes in one of them changes the digest.",
    )
    add_manifest(digest)
    for each in (bootstrap, check):
        add_manifest(each)
        each.add_argument(
            "--namespace",
            action="append",
            metavar="NAME",
            help="a product's namespace; bootstrap grants these alone, check looks at these (may be repeated)",
        )
        add_format(each)


def run(options: argparse.Namespace) -> int:
    """Run one of them."""
    from floe_dagster.compilation.inheritance import load_manifest_chain
    from floe_dagster.findings import InputError

    named = options.manifest or os.environ.get("FLOE_MANIFEST", "").strip() or DEFAULT_MANIFEST
    manifest = Path(os.path.abspath(named))
    try:
        chain = load_manifest_chain(manifest, root=find_project_root(manifest))
    except InputError as error:
        print_findings(error.findings)
        return 2
    print_findings(finding for finding in chain.findings if finding.severity == "error")
    if chain.merged is None:
        return 2
    if options.action == "digest":
        from floe_dagster.compilation.manifest_choice import chain_digest

        print(chain_digest(layer.document.sha256 for layer in chain.layers))
        return 0
    if options.action == "bootstrap":
        return _bootstrap(options, chain.merged)
    if options.action == "wait":
        return _wait(options, chain.merged)
    return _check(options, chain.merged, manifest)


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


def _check(options: argparse.Namespace, manifest: Any, manifest_file: Path) -> int:
    from floe_dagster.compilation.builder import listed_engines, resolved_plugins
    from floe_dagster.platform.check import check_platform

    plugins = resolved_plugins(manifest, listed_engines(manifest))
    checks = check_platform(
        plugins.catalog,
        plugins.storage,
        engines=plugins.engines_by_field(),
        home=FloeHome.locate(manifest_file),
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


COMMAND = Command(
    text="bring catalog and storage to a usable state, or say what is wrong with them and with the engine",
    examples="""
floe-dagster platform bootstrap --manifest manifests/demo.yaml --dry-run
floe-dagster platform check --manifest manifests/demo.yaml
floe-dagster platform digest --manifest manifests/demo.yaml
""",
    run=run,
    add_options=add_options,
)
