"""What all tests of a process share. Each has to leave it as it found it, so that the order of the tests decides nothing."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext
from dagster._core.storage.defs_state import base as defs_state
from opentelemetry import context, metrics, trace

OF_PYTEST = ("PYTEST_CURRENT_TEST",)
"""Variables that pytest changes with every test."""
OF_PRODUCTS = "floe_dagster.products."
"""Loggers that a process configures once for each product it serves, as tests/unit/test_log_formatter.py says."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True)
class Shared:
    """One thing that belongs to the process.

    Args:
        name: What it is called where a test left it changed.
        read: Returns what it is now, as something that later changes do not reach.
        restore: Brings back what `read` returned.
        tell: Says in a few words how two of those differ.
        is_a_fault: Whether a test that leaves it changed fails; else it is brought back and nothing said.
    """

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]
    tell: Callable[[Any, Any], str] = lambda before, now: f"{before!r} before, {now!r} now"
    is_a_fault: bool = True


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    # Names alone: what a variable holds may be a secret.
    kinds = {
        "new": now.keys() - before.keys(),
        "gone": before.keys() - now.keys(),
        "changed": {name for name in before.keys() & now.keys() if before[name] != now[name]},
    }
    return "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in kinds.items() if names)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in OF_PYTEST}


def _restore_environment(before: Mapping[str, str]) -> None:
    for name in _environment().keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


def _working_directory() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed under the process
        return None


def _modules_from(folder: Path) -> dict[str, Any]:
    below = tuple({f"{folder}{os.sep}", f"{os.path.realpath(folder)}{os.sep}"})
    return {
        name: module
        for name, module in list(sys.modules.items())
        # Asking a module for an attribute can import others.
        if str(getattr(module, "__dict__", {}).get("__file__", "")).startswith(below)
    }


def _restore_modules(folder: Path, before: Mapping[str, Any]) -> None:
    for name in _modules_from(folder):
        del sys.modules[name]
    sys.modules.update(before)


def _logger_states(of_products: bool) -> dict[str, tuple[Any, ...]]:
    loggers = {"root": logging.getLogger()} if not of_products else {}
    loggers |= {
        name: logger
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.startswith(OF_PRODUCTS) == of_products
    }
    states = {name: _state(name, logger) for name, logger in loggers.items()}
    return {name: state for name, state in states.items() if state != _AS_MADE}


def _is_ours(name: str) -> bool:
    # Other libraries, Dagster and dbt among them, set levels and handlers of their own as they are first used.
    return name == "root" or name.split(".")[0] == "floe_dagster"


def _state(name: str, logger: logging.Logger) -> tuple[Any, ...]:
    if _is_ours(name):
        return logger.disabled, tuple(logger.handlers), logger.level, logger.propagate
    return logger.disabled, *_AS_MADE[1:]


_AS_MADE: tuple[Any, ...] = (False, (), logging.NOTSET, True)


def _restore_loggers(of_products: bool, before: Mapping[str, tuple[Any, ...]]) -> None:
    for name in _logger_states(of_products).keys() | before.keys():
        logger = logging.getLogger(None if name == "root" else name)
        logger.disabled, handlers, level, propagate = before.get(name, _AS_MADE)
        if _is_ours(name):
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)


def _providers() -> tuple[Any, ...]:
    # OpenTelemetry lets nobody set them twice, so nobody can set them back by a public door.
    return trace._TRACER_PROVIDER, metrics._internal._METER_PROVIDER


def _restore_providers(before: tuple[Any, ...]) -> None:
    trace._TRACER_PROVIDER, metrics._internal._METER_PROVIDER = before


def _restore_load_context(before: DefinitionsLoadContext | None) -> None:
    # `get` makes one where there is none; none has to be none again.
    DefinitionsLoadContext._instance = before


def _signal_handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in SIGNALS}


def _restore_signal_handlers(before: Mapping[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)


def _shared(temporary: Path) -> tuple[Shared, ...]:
    # Warning filters are not among them: pytest itself brings those back around every phase of a test.
    return (
        Shared(
            "Dagster's DefinitionsLoadContext",
            lambda: DefinitionsLoadContext._instance,
            _restore_load_context,
            lambda before, now: " and then ".join(
                "none" if one is None else one.load_type.value for one in (before, now)
            ),
        ),
        Shared(
            "the state storage that definitions are loaded from",
            defs_state._current_storage.get,
            defs_state._current_storage.set,
        ),
        Shared("the environment", _environment, _restore_environment, _changed),
        Shared("the working directory", _working_directory, lambda before: os.chdir(before or temporary)),
        Shared("sys.path", lambda: [*sys.path], lambda before: sys.path.__setitem__(slice(None), before)),
        Shared(
            "modules from temporary folders",
            lambda: _modules_from(temporary),
            lambda before: _restore_modules(temporary, before),
            _changed,
        ),
        Shared(
            "loggers",
            lambda: _logger_states(False),
            lambda before: _restore_loggers(False, before),
            _changed,
        ),
        Shared(
            "loggers of products",
            lambda: _logger_states(True),
            lambda before: _restore_loggers(True, before),
            is_a_fault=False,
        ),
        Shared("logging.disable", lambda: logging.root.manager.disable, logging.disable),
        Shared("OpenTelemetry's providers", _providers, _restore_providers),
        Shared("OpenTelemetry's current context", context.get_current, context.attach),
        # A run in the process leaves SIGTERM with the handler of SIGINT (dagster/_utils/interrupts.py).
        Shared("signal handlers", _signal_handlers, _restore_signal_handlers, is_a_fault=False),
        Shared("the default timeout of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
    )


def kept(who: str, temporary: Path) -> Iterator[None]:
    """Bring back, for a fixture, what the process shares, and fail where it was left changed.

    Args:
        who: Is named where it fails: a test, or the fixtures of a module.
        temporary: Folder of all temporary folders of the tests.
    """
    shared = _shared(temporary)
    before = [one.read() for one in shared]
    yield
    left = []
    for one, was in zip(shared, before, strict=True):
        now = one.read()
        if now != was:
            one.restore(was)
            if one.is_a_fault:
                left.append(f"{one.name} ({one.tell(was, now)})")
    if left:
        pytest.fail(f"{who} left changed: {'; '.join(left)}", pytrace=False)
