"""`floe-dagster lineage status` and `floe-dagster lineage replay`."""

from __future__ import annotations

from floe_dagster.cli.waiting_records import Waiting, waiting_command


def _waiting(product: Waiting) -> None:
    from floe_dagster.observability.lineage.emitter import lineage_receiver
    from floe_dagster.observability.sending import lineage_sender

    config = product.observability
    receiver = None
    if config.lineage and (config.lineage_transport or "http") == "http":
        receiver = lineage_receiver(config)
    product.add("lineage", lineage_sender(receiver) if receiver else None, batch=20)


COMMAND = waiting_command("lineage", "OpenLineage events", _waiting)
