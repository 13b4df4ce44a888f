"""Receivers of telemetry and lineage for the tests: real servers on the loopback address that keep what they get."""

from __future__ import annotations

from tests.receivers.faults import FaultMode, Request
from tests.receivers.kept import KeptReceivers
from tests.receivers.lineage import LineageGraph, LineageReceiver
from tests.receivers.otlp import OtlpReceiver
from tests.receivers.telemetry import Log, Metric, Span
from tests.receivers.tree import Tree

__all__ = [
    "FaultMode",
    "KeptReceivers",
    "LineageGraph",
    "LineageReceiver",
    "Log",
    "Metric",
    "OtlpReceiver",
    "Request",
    "Span",
    "Tree",
]
