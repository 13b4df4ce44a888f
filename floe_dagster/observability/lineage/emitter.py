"""Where OpenLineage events of one product go."""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path
from typing import Any

from floe_dagster.home import FloeHome
from floe_dagster.observability.delivery import Delivery
from floe_dagster.observability.lineage.serialization import encode_event
from floe_dagster.observability.logs import product_logger
from floe_dagster.observability.outbox import Outbox
from floe_dagster.observability.receiver import Receiver
from floe_dagster.observability.sending import lineage_sender
from floe_dagster.schemas.artifacts import ObservabilityConfig

LINEAGE_FIELD = "observability.lineage.endpoint"
_ANSWER_SECONDS = 30.0


def lineage_receiver(config: ObservabilityConfig) -> Receiver | None:
    """Return who takes a product's events; None where the manifest names nobody."""
    if not config.lineage_endpoint:
        return None
    return Receiver(
        url=config.lineage_endpoint,
        bearer=config.lineage_api_key,
        certificate_file=config.lineage_certificate_file,
        answer_seconds=_ANSWER_SECONDS,
        field=LINEAGE_FIELD,
    )


class LineageEmitter:
    """Takes events and never waits for whoever reads them.

    Args:
        product: The product's slug.
        config: Of the artifact.
        home: The outbox, and the file of transport: file, lie here.
    """

    def __init__(self, product: str, config: ObservabilityConfig, home: FloeHome) -> None:
        self.product = product
        self.drain_seconds = config.lineage_drain_seconds
        self.delivery: Delivery | None = None
        self._file: Path | None = None
        self._lock = threading.Lock()
        transport = (config.lineage_transport or "http") if config.lineage else "noop"
        receiver = lineage_receiver(config) if transport == "http" else None
        if transport == "http" and receiver is None:
            transport = "noop"
        self.transport = transport
        self.enabled = transport != "noop"
        if receiver is not None:
            self.delivery = Delivery(
                Outbox(home.outbox_dir(product, "lineage")),
                lineage_sender(receiver),
                batch=20,
                name="lineage events",
                field=f"{LINEAGE_FIELD} of {product}",
                log=product_logger(product),
            )
            self.delivery.start()
        elif transport == "file":
            self._file = home.path / (config.lineage_file or "lineage.jsonl")

    def emit(self, event: Any) -> None:
        """Hand one event over; never raises, never waits.

        Args:
            event: `openlineage.client.event_v2.RunEvent`.
        """
        if not self.enabled:
            return
        record = encode_event(event)
        if self.delivery is not None:
            self.delivery.put(record)
        elif self._file is not None:
            self._append(self._file, record)
        else:
            with self._lock:
                print(record.decode(), file=sys.stderr, flush=True)

    def _append(self, file: Path, record: bytes) -> None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # One write each, so that processes that append at once do not mix their lines.
            handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                if os.write(handle, record + b"\n") != len(record) + 1:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(handle)
        except OSError as error:
            self.enabled = False
            product_logger(self.product).warning(
                "observability.lineage.file: %s cannot be written: %s", file, error.strerror
            )

    def flush(self) -> bool:
        """Wait as long as the receiver answers promptly; what is left is sent later."""
        return self.delivery.flush(self.drain_seconds) if self.delivery is not None else True

    def close(self) -> None:
        """Flush and end the thread."""
        self.enabled = False
        if self.delivery is not None:
            self.delivery.close(self.drain_seconds)
