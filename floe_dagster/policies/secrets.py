"""Secrets: no document and no model holds one itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project, meta_of
from floe_dagster.policies.policy import Policy

SECRET_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|xox[baprs]-[A-Za-z0-9-]{20,})"),
    "a password in a URL": re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@'\"{}]+:[^@\s/'\"{}$]+@"),
    "a password": re.compile(
        r"(?i)\b(?:password|passwd|client_secret|secret_key|api_key)\s*(?:=|:|:=)\s*'[^'{}$\s]{6,}'"
    ),
}

SECRET_FIX = "Use env_var('DBT_ENV_SECRET_…'), and replace the secret: it has been seen."


class Secrets(Policy):
    """No document and no model holds a secret itself."""

    name = "secrets"
    title = "Secrets"
    description = (
        "No document, SQL, meta or description holds a secret itself. Under `off`, too, one is a warning."
    )

    def level(self, general: str, _setting: None) -> str:
        """Return the general level, and `warn` where that is `off`: whoever can read a file knows its secrets already."""
        return "warn" if general == "off" else general

    def check(self, project: Project, _setting: None) -> Iterator[Finding]:
        """No document and no model holds a secret itself."""
        yield from (f for f in project.context.document_findings if f.code == "literal-secret")
        for node in project.models:
            sql = node.get("raw_code") or ""
            for kind, pattern in SECRET_PATTERNS.items():
                found = pattern.search(sql)
                if found:
                    yield project.finding(
                        node,
                        f"the SQL of {node['name']!r} holds {kind}",
                        SECRET_FIX,
                        "secret-in-model",
                        sql_line=sql.count("\n", 0, found.start()) + 1,
                    )
            texts = [
                ("meta", json.dumps(meta_of(node), default=str)),
                ("description", node.get("description")),
            ]
            texts += [
                (f"column {c['name']!r}", json.dumps([c, meta_of(c)], default=str))
                for c in node["columns"].values()
            ]
            for place, text in texts:
                for kind, pattern in SECRET_PATTERNS.items():
                    if text and pattern.search(text):
                        yield project.finding(
                            node,
                            f"the {place} of {node['name']!r} holds {kind}",
                            SECRET_FIX,
                            "secret-in-model",
                        )
