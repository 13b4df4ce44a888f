"""What is wrong with a document or a model, in a form that a person and a machine can read.

Every part of the project reports through `Finding`: the YAML reader, the schemas, the compiler, the
policies. A finding names the place, what stands there, what is allowed and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from floe_dagster.errors import FloeError

Severity = Literal["error", "warning", "info"]
Kind = Literal["input", "policy"]

_ORDER: dict[str, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to mend.

    Args:
        code: Stable kebab-case name of the rule, for example `unknown-field`.
        severity: `error` blocks, `warning` and `info` do not.
        message: What was found, in one sentence, without secrets.
        kind: `input` means that a document or a project cannot be used (exit code 2); `policy` means
            that it breaks a governance rule (exit code 1 where it is an error).
        file: Path for display, relative to the project root where it lies inside; `/` separated.
        line: 1-based.
        column: 1-based.
        field: Dotted path in the document, for example `governance.naming.pattern`.
        found: What stands there (never a secret).
        allowed: What could stand there.
        fix: What to do.
        model: Name of the dbt model concerned.
        policy: Name of the policy that found it (see `floe_dagster.policies`).
    """

    code: str
    severity: Severity
    message: str
    kind: Kind = "input"
    file: str | None = None
    line: int | None = None
    column: int | None = None
    field: str | None = None
    found: str | None = None
    allowed: str | None = None
    fix: str | None = None
    model: str | None = None
    policy: str | None = None

    @property
    def place(self) -> str:
        """`file:line:column` as far as it is known, or an empty string."""
        parts = [self.file or ""]
        if self.file and self.line is not None:
            parts.append(str(self.line))
            if self.column is not None:
                parts.append(str(self.column))
        return ":".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values; absent fields are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def to_text(self) -> str:
        """Return the finding as lines for a terminal, without colours."""
        head = f"{self.place}: " if self.place else ""
        lines = [f"{head}{self.severity}: {self.message} [{self.code}]"]
        for label, value in (
            ("field", self.field),
            ("found", self.found),
            ("allowed", self.allowed),
            ("fix", self.fix),
        ):
            if value:
                lines.append(f"    {label + ':':<9}{value}")
        return "\n".join(lines)


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return distinct findings ordered by file, line, column, then severity."""
    return sorted(
        dict.fromkeys(findings),
        key=lambda f: (f.file or "", f.line or 0, f.column or 0, _ORDER[f.severity], f.code, f.message),
    )


class InputError(FloeError):
    """Something that the user gave cannot be used; carries every finding of it.

    Args:
        findings: At least one finding.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = sort_findings(findings)
        super().__init__("\n".join(finding.to_text() for finding in self.findings))
