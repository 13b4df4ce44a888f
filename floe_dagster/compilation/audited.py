"""What the audit log learns of a compilation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from floe_dagster.compilation.bundle import Bundle, BundleError
from floe_dagster.compilation.result import CompileResult
from floe_dagster.home import FloeHome
from floe_dagster.observability.audit_log import AuditLog, AuditRecord, changed_rules


def record_compilation(
    result: CompileResult, home: FloeHome, previous: str | None, *, was_there: bool
) -> None:
    """Write what a compilation came to, and which rules it changed.

    A compilation that changes nothing is none. Where audit logging was enabled until now, that it is not any more is recorded.

    Args:
        result: Of the compilation.
        home: The writable folder.
        previous: Digest of the last good compilation; None where there was none.
        was_there: A state of these very sources had been compiled before.
    """
    before = _report(home, result.slug, previous)
    after = result.summary
    if not (_is_enabled(before) or _is_enabled(after)):
        return
    log = AuditLog(home)
    rolled_back = was_there and not result.blocked and previous not in (None, result.digest)
    manifest = after.get("manifest") or {}
    details: dict[str, Any] = {
        "previous": previous,
        "manifest": {name: manifest.get(name) for name in ("file", "digest", "decided_by")},
        "findings": sorted({finding.code for finding in result.findings if finding.severity == "error"}),
    }
    log.add(
        AuditRecord(
            "rollback" if rolled_back else "compile",
            result.slug,
            "blocked" if result.blocked else "succeeded",
            digest=result.digest,
            details={name: value for name, value in details.items() if value},
        )
    )
    changes = changed_rules(_decisions(before), _decisions(after)) if not result.blocked else []
    if changes:
        log.add(AuditRecord("rules", result.slug, digest=result.digest, details={"changes": changes}))


def _report(home: FloeHome, slug: str, digest: str | None) -> Mapping[str, Any]:
    if digest is None:
        return {}
    try:
        return Bundle.open(home.state_dir(slug) / f"{digest.removeprefix('sha256:')}.zip").report()
    except BundleError:
        return {}


def _decisions(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((report.get("governance") or {}).get("decisions", ()))


def _is_enabled(report: Mapping[str, Any]) -> bool:
    return any(each["field"] == "audit_logging" and each["value"] == "enabled" for each in _decisions(report))
