"""What waits for a receiver that was away: how much it is, and its delivery."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_dagster.cli.command import Command
from floe_dagster.cli.options import add_format, add_products
from floe_dagster.cli.terminal import print_findings, print_json, product_dirs, table

if TYPE_CHECKING:
    from floe_dagster.home import FloeHome
    from floe_dagster.observability.answers import Send
    from floe_dagster.observability.outbox import Outbox
    from floe_dagster.schemas.artifacts import ObservabilityConfig


@dataclass(slots=True)
class Waiting:
    """The outboxes of one product.

    Args:
        product: Its slug.
        observability: Of its compiled artifact.
        home: Where the outboxes lie.
        outboxes: Kind, outbox, how to deliver it (None where the manifest names no receiver), records of one call.
    """

    product: str
    observability: ObservabilityConfig
    home: FloeHome
    outboxes: list[tuple[str, Outbox, Send | None, int]] = field(default_factory=list)

    def add(self, kind: str, send: Send | None, *, batch: int) -> None:
        """Add one outbox.

        Args:
            kind: `lineage`, `traces` or `metrics`.
            send: Delivers records; None where the manifest names no receiver.
            batch: Records of one call at most.
        """
        from floe_dagster.observability.outbox import Outbox

        self.outboxes.append((kind, Outbox(self.home.outbox_dir(self.product, kind)), send, batch))


def waiting_command(name: str, records: str, fill: Callable[[Waiting], None]) -> Command:
    """Return the command that shows or delivers what waits.

    Args:
        name: Of the command.
        records: What waits, for people.
        fill: Adds the outboxes of a product.
    """
    return Command(
        text=f"show or deliver {records} that wait because their receiver was away",
        examples=f"floe-dagster {name} status\nfloe-dagster {name} replay products/customer_360",
        run=partial(_run_action, fill=fill),
        add_options=partial(_add_actions, records=records),
    )


def _add_actions(command: argparse.ArgumentParser, records: str) -> None:
    actions = command.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    status = actions.add_parser(
        "status", help=f"how many {records} wait", description=f"How many {records} wait."
    )
    replay = actions.add_parser(
        "replay",
        help="deliver them now; exit code 1 where the receiver does not take them",
        description="Deliver now what waits, oldest first. What is not taken stays, and can be replayed again.",
    )
    replay.add_argument(
        "--refused", action="store_true", help="once more also what the receiver refused for good"
    )
    for parser in (status, replay):
        add_products(parser)
        add_format(parser)


def _run_action(options: argparse.Namespace, fill: Callable[[Waiting], None]) -> int:
    from floe_dagster.compilation.bundle import BAKED_BUNDLE, Bundle, BundleError
    from floe_dagster.compilation.product_folder import missing_product
    from floe_dagster.home import FloeHome

    products, unknown = [], False
    for folder in product_dirs(options.products):
        if finding := missing_product(Path(folder)):
            print_findings([finding])
            unknown = True
            continue
        try:
            bundle = Bundle.open(Path(folder) / "target" / BAKED_BUNDLE)
        except BundleError:
            print(
                f"error: {folder} is not compiled, so its receiver is not known; run `floe-dagster compile {folder}`",
                file=sys.stderr,
            )
            unknown = True
            continue
        waiting = Waiting(bundle.slug, bundle.artifact().observability, FloeHome.locate(Path(folder)))
        fill(waiting)
        products.append(waiting)
    if unknown and not products:
        return 2
    # One that is not compiled keeps nobody from the others.
    code = _replay(options, products) if options.action == "replay" else _status(options, products)
    return 2 if unknown else code


def _status(options: argparse.Namespace, products: list[Waiting]) -> int:
    told = [
        {
            "product": product.product,
            "kind": kind,
            "waiting": outbox.pending(),
            "bytes": outbox.pending_bytes(),
            "refused": outbox.refused(),
            "unreachable": len(outbox.look_for_unreachable()),
            "receiver": send is not None,
            "folder": str(outbox.folder),
        }
        for product in products
        for kind, outbox, send, _batch in product.outboxes
    ]
    if options.format == "json":
        print_json({"outboxes": told})
        return 0
    columns = ("product", "kind", "waiting", "bytes", "refused", "unreachable", "folder")
    print(table(columns, [[str(one[column]) for column in columns] for one in told], right=(2, 3, 4, 5)))
    _tell_unreachable(products)
    return 0


def _tell_unreachable(products: list[Waiting]) -> None:
    """Name the files that this user cannot deliver; table and JSON count them."""
    for product in products:
        for kind, outbox, _send, _batch in product.outboxes:
            for path, reason in outbox.look_for_unreachable().items():
                print(
                    f"{product.product}, {kind}: {path} cannot be delivered from here: {reason}; replay as the user whose "
                    "it is, or let this one read and write the file and its .lock",
                    file=sys.stderr,
                )


def _replay(options: argparse.Namespace, products: list[Waiting]) -> int:
    from floe_dagster.observability.replay import ReplayEndedError, deliver_now

    told: list[dict[str, Any]] = []
    for product in products:
        for kind, outbox, send, batch in product.outboxes:
            one: dict[str, Any] = {"product": product.product, "kind": kind, "delivered": 0, "refused": 0}
            told.append(one)
            if options.refused:
                outbox.requeue_refused()
            waits = outbox.pending() > 0
            if waits and send is None:
                one["error"] = "the manifest names no receiver for it"
            elif waits and send is not None:
                try:
                    one["delivered"], one["refused"] = deliver_now(outbox, send, batch=batch)
                except ReplayEndedError as error:
                    one |= {"delivered": error.delivered, "refused": error.refused, "error": str(error)}
            one["waiting"] = outbox.pending()
            one["unreachable"] = len(outbox.look_for_unreachable())
    failed = any("error" in one or one["unreachable"] for one in told)
    if options.format == "json":
        print_json({"outboxes": told})
        return 1 if failed else 0
    columns = ("product", "kind", "delivered", "refused", "waiting", "unreachable")
    print(table(columns, [[str(one[column]) for column in columns] for one in told], right=(2, 3, 4, 5)))
    _tell_unreachable(products)
    for one in told:
        if "error" in one:
            print(f"error: {one['product']}, {one['kind']}: {one['error']}", file=sys.stderr)
        elif one["waiting"] and not one["unreachable"]:
            print(
                f"{one['product']}, {one['kind']}: {one['waiting']} belong to processes that still run, which send them",
                file=sys.stderr,
            )
    return 1 if failed else 0
