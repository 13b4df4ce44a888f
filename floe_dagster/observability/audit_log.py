"""The audit log: who did what to a product, where the platform says `audit_logging: enabled`.

A record is one line of JSON in `FLOE_HOME/audit/audit.jsonl`. The file is only ever appended to, each line by one write, so
processes that write at the same time do not mix theirs. A record holds names, numbers and digests of ours and no text that
somebody else wrote, such as the message of an error: no secret can be in it. Its fields are those of `AuditRecord`;
docs/operations.md says what each means.
"""

from __future__ import annotations

import getpass
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from floe_dagster.home import FloeHome

VERSION = 1
Action = Literal["compile", "rollback", "rules", "run", "publish", "maintain", "drop"]
Outcome = Literal["began", "succeeded", "failed", "blocked"]
LAUNCH_TAGS: Mapping[str, str] = {
    "dagster/user": "user",
    "user": "user",
    "dagster/schedule_name": "schedule",
    "dagster/sensor_name": "sensor",
    "dagster/auto_materialize": "automation",
    "dagster/from_automation_condition": "automation",
    "dagster/backfill": "backfill",
    "dagster/parent_run_id": "again_after",
}
"""Tags by which Dagster says who asked for a run, and what a record calls them."""

_log = logging.getLogger("floe_dagster")


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the audit log.

    Args:
        action: What was done.
        product: Slug of the product.
        outcome: What came of it.
        digest: Of the sources, where the record is of a compiled state or of a run of one.
        run_id: Dagster's, where it was done in a run.
        table: The published table, where the record is of one.
        launched_by: Who asked for the run, as Dagster says it.
        details: What else belongs to the action; see docs/operations.md.
        at: When, in UTC.
        user: The user of the operating system.
        host: The machine, or the pod.
        process: Its id.
        version: Of the format.
    """

    action: Action
    product: str
    outcome: Outcome = "succeeded"
    digest: str | None = None
    run_id: str | None = None
    table: str | None = None
    launched_by: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    at: str = field(default_factory=lambda: _now())
    user: str = field(default_factory=lambda: _user())
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)
    version: int = VERSION

    def to_line(self) -> bytes:
        """Return the record as it stands in the file; what it does not have is left out."""
        named = {name: getattr(self, name) for name in self.__slots__}
        said = {name: value for name, value in named.items() if value not in (None, {})}
        return json.dumps(said, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class AuditLog:
    """Writes records, where the platform asks for them.

    Args:
        home: The writable folder.
        enabled: What `audit_logging` says; nothing is written where it is False.
    """

    home: FloeHome
    enabled: bool = True

    def begin(self, record: AuditRecord) -> None:
        """Write a record before something is done: what cannot be recorded is not done.

        Raises:
            OSError: The file cannot be written.
        """
        if self.enabled:
            _append(self.home, record)

    def add(self, record: AuditRecord) -> None:
        """Write a record of something that is done already; where the file cannot be written, the log says so."""
        try:
            self.begin(record)
        except OSError as error:
            _log.error("the audit log %s lacks a record: %s", self.home.audit_log, error)

    @contextmanager
    def action(self, begun: AuditRecord) -> Iterator[dict[str, Any]]:
        """Record that something begins, and how it ends; yields a mapping for the details of its end.

        Args:
            begun: Of the beginning; the record of the end has the same facts.

        Raises:
            OSError: The file cannot be written; then nothing has begun.
        """
        self.begin(replace(begun, outcome="began"))
        details: dict[str, Any] = {}
        outcome: Outcome = "failed"
        try:
            yield details
            outcome = "succeeded"
        except BaseException as error:
            details["error"] = type(error).__name__
            raise
        finally:
            self.add(replace(begun, outcome=outcome, details={**begun.details, **details}, at=_now()))


def of_table(action: AuditRecord, table: str, outcome: Outcome, details: Mapping[str, Any]) -> AuditRecord:
    """Return the record of what an action did to one table.

    Args:
        action: The action.
        table: Namespace and name.
        outcome: What came of it.
        details: What belongs to it.
    """
    return replace(action, table=table, outcome=outcome, details=details, at=_now())


def launched_by(tags: Mapping[str, str]) -> dict[str, str]:
    """Return who asked for a run, as its tags say it.

    Args:
        tags: Of the run.
    """
    return {name: str(tags[tag])[:200] for tag, name in LAUNCH_TAGS.items() if tags.get(tag)}


def changed_rules(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return what changed of the governance in force, with who decided it.

    Args:
        before: `governance.decisions` of the report of the earlier compilation.
        after: Of the later one.
    """
    old, new = ({each["field"]: each for each in decisions} for decisions in (before, after))
    changes = []
    for name in sorted({*old, *new}):
        was, now = (found.get(name, {}) for found in (old, new))
        if was.get("value") != now.get("value"):
            place = f"{now['file']}:{now['line']}" if now else None
            changes.append(
                {
                    "field": name,
                    "before": was.get("value"),
                    "after": now.get("value"),
                    "decided_by": now.get("decided_by"),
                    "place": place,
                }
            )
    return changes


def _append(home: FloeHome, record: AuditRecord) -> None:
    path = home.audit_log
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = record.to_line()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(f"{path} took a part of a record; the disk may be full")
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container may run under a number that has no name.
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
