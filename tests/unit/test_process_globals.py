"""A test that leaves changed what the process shares is named, and the next one finds it as it was."""

from __future__ import annotations

import logging
import logging.config
import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext
from dagster._core.storage.defs_state import base as defs_state
from dagster._core.storage.defs_state.base import DefsStateStorage
from dagster._core.storage.defs_state.blob_storage_state_storage import UPathDefsStateStorage
from opentelemetry import context, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from tests.jobs import execute_job, without_state
from tests.process_globals import kept

READ: dict[str, Callable[[], Any]] = {
    "context": lambda: DefinitionsLoadContext._instance,
    "storage": DefsStateStorage.get,
    # An assertion that fails prints this, and values may be secrets.
    "environment": lambda: {name: hash(value) for name, value in os.environ.items()},
    "folder": os.getcwd,
    "path": lambda: [*sys.path],
    "modules": lambda: "left_behind" in sys.modules,
    "logging": lambda: [*logging.getLogger().handlers, logging.getLogger("floe_dagster").level],
    "of libraries": lambda: logging.getLogger("urllib3").disabled,
    "disabled": lambda: logging.root.manager.disable,
    "product": lambda: logging.getLogger("floe_dagster.products.shop").level,
    "traces": trace.get_tracer_provider,
    "metrics": metrics.get_meter_provider,
    "span": context.get_current,
    "signals": lambda: signal.getsignal(signal.SIGTERM),
    "timeout": socket.getdefaulttimeout,
}
"""What is looked at here, by its own public door where it has one."""


def run_a_job(_folder: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dg.execute_job(dg.reconstructable(without_state), instance=instance)


def enter_an_instance(folder: Path) -> None:
    # As `with dg.DagsterInstance.get()` does on its way in.
    defs_state._current_storage.set(UPathDefsStateStorage(str(folder)))


def change_a_variable(_folder: Path) -> None:
    os.environ["FLOE_HOME"] = "a secret"
    os.environ.pop("PATH")


def load_a_module(folder: Path) -> None:
    (folder / "left_behind.py").touch()
    spec = spec_from_file_location("left_behind", folder / "left_behind.py")
    assert spec is not None
    sys.modules["left_behind"] = module_from_spec(spec)


def change_loggers(_folder: Path) -> None:
    logging.basicConfig(force=True)
    logging.getLogger("floe_dagster").setLevel(logging.DEBUG)


def disable_loggers(_folder: Path) -> None:
    logging.getLogger("floe_dagster.other")
    # Whatever else it says, it disables the loggers that are there unless it is told not to.
    logging.config.dictConfig({"version": 1})


def change_providers(_folder: Path) -> None:
    trace._TRACER_PROVIDER = TracerProvider(shutdown_on_exit=False)
    metrics._internal._METER_PROVIDER = MeterProvider(shutdown_on_exit=False)


LEAVING: dict[str, tuple[Callable[[Path], object], str]] = {
    "a run": (run_a_job, r"DefinitionsLoadContext \(none and then RECONSTRUCTION\)"),
    "an instance": (enter_an_instance, "state storage"),
    "variables": (change_a_variable, r"the environment \(new: FLOE_HOME; gone: PATH\)$"),
    "a folder": (os.chdir, "the working directory"),
    "a path": (lambda folder: sys.path.insert(0, str(folder)), "sys.path"),
    "a module": (load_a_module, r"modules from temporary folders \(new: left_behind\)"),
    "loggers": (change_loggers, r"loggers \(new: floe_dagster; changed: root\)"),
    "disabled loggers": (disable_loggers, r"loggers \(.*floe_dagster\.other.*urllib3"),
    "no logging": (lambda _folder: logging.disable(logging.ERROR), "logging.disable"),
    "providers": (change_providers, "OpenTelemetry's providers"),
    "a span": (lambda _folder: context.attach(context.set_value("a", 1)), "OpenTelemetry's current context"),
    "a timeout": (lambda _folder: socket.setdefaulttimeout(1), "the default timeout of sockets"),
}


@pytest.mark.parametrize("what", LEAVING)
def test_what_a_test_leaves_changed_is_told_and_brought_back(what: str, tmp_path: Path) -> None:
    leave, told = LEAVING[what]
    before = {name: read() for name, read in READ.items()}
    guard = kept("tests/some_test.py::test_it", tmp_path)
    next(guard)
    leave(tmp_path)
    assert {name: read() for name, read in READ.items()} != before
    with pytest.raises(pytest.fail.Exception, match=told) as failed:
        next(guard)
    assert str(failed.value).startswith("tests/some_test.py::test_it left changed: ")
    assert "a secret" not in str(failed.value)
    assert {name: read() for name, read in READ.items()} == before


def change_a_product(_folder: Path) -> None:
    logging.getLogger("floe_dagster.products.shop").setLevel(logging.ERROR)


def change_a_handler(_folder: Path) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.mark.parametrize("leave", [change_a_product, change_a_handler, lambda _folder: None])
def test_what_the_process_of_a_product_changes_is_brought_back_without_a_word(
    leave: Callable[[Path], object], tmp_path: Path
) -> None:
    before = {name: read() for name, read in READ.items()}
    guard = kept("tests/some_test.py::test_it", tmp_path)
    next(guard)
    leave(tmp_path)
    with pytest.raises(StopIteration):
        next(guard)
    assert {name: read() for name, read in READ.items()} == before


def test_the_job_of_a_test_runs_and_leaves_no_context() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert execute_job(dg.reconstructable(without_state), instance=instance).success
    assert not DefinitionsLoadContext.is_set()
