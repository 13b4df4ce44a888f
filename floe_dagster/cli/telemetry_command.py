"""`floe-dagster telemetry status` and `floe-dagster telemetry replay`."""

from __future__ import annotations

from floe_dagster.cli.waiting_records import Waiting, waiting_command


def _waiting(product: Waiting) -> None:
    from floe_dagster.observability.sending import otlp_sender
    from floe_dagster.observability.telemetry import otlp_receiver

    config = product.observability.telemetry
    for signal in ("traces", "metrics"):
        sender = None
        if config.enabled and config.backend == "otlp":
            sender = otlp_sender(otlp_receiver(config), signal)
        product.add(signal, sender, batch=1)


COMMAND = waiting_command("telemetry", "traces and metrics", _waiting)
