"""Receivers for unit tests, and pauses that suit them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from floe_dagster.observability import delivery, sweep
from tests.receivers import LineageReceiver, OtlpReceiver
from tests.receivers.serving import self_signed


@pytest.fixture
def lineage() -> Iterator[LineageReceiver]:
    with LineageReceiver() as receiver:
        yield receiver


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that nobody signed but itself, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have deliveries try again soon."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE_SECONDS", 0.2)
    # So short pauses would make a few attempts of a trouble that lasts.
    monkeypatch.setattr(sweep, "ATTEMPTS", 1_000)
