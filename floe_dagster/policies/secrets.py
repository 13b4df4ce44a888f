"""Secrets: no file of a product holds one itself."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pydantic import Field

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project, SourceText
from floe_dagster.policies.policy import Policy
from floe_dagster.policies.words import words_of
from floe_dagster.schemas.base import Regex, Section
from floe_dagster.schemas.governed import Setting
from floe_dagster.schemas.merging import All
from floe_dagster.schemas.patterns import compiled

FURTHER_FORMS: tuple[tuple[str, str], ...] = (
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a private key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY"),
    ("a password in a URL", r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@'\"{}]*:[^@\s/'\"{}$]+@"),
    ("a GitHub token", r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}"),
    ("a Google OAuth token", r"\bya29\.[0-9A-Za-z_-]{20,}"),
    ("an API key of an AI service", r"\bsk-(?:proj|svcacct|admin|ant|or)-[A-Za-z0-9_-]{20,}"),
    ("a Databricks token", r"\bdapi[0-9a-f]{32}"),
    ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{20,}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}"),
    ("a PyPI token", r"\bpypi-[A-Za-z0-9_-]{32,}"),
    ("a DigitalOcean token", r"\bdo[opr]_v1_[0-9a-f]{64}"),
    ("a Shopify token", r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    ("a Slack token", r"\bxox[a-z]-[A-Za-z0-9-]{20,}"),
    ("a Stripe key", r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{24,}"),
    ("a key of Azure storage", r"(?i)\b(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{20,}"),
    ("a bearer token", r"(?i)\b(?:authorization|proxy-authorization)['\"]?\s*[:=]\s*['\"]?(?:bearer|basic|token)\s+[A-Za-z0-9+/._=-]{12,}"),
)  # fmt: skip
"""Forms that detect-secrets does not have, or only in part."""
NOT_USED = frozenset({"Public IP (ipv4)", "Artifactory Credentials"})
"""Detectors of detect-secrets that take ordinary words and numbers for secrets."""
PASSWORD_NAMES = ("password", "passwd", "pwd", "passphrase")
SECRET_NAMES = (
    *PASSWORD_NAMES, "pass", "secret", "client_secret", "token", "api_?key", "access_?key", "access_?key_?id", "secret_?key",
    "private_?key", "account_?key", "auth_?key", "master_?key", "encryption_?key", "service_?key", "credential", "sas",
)  # fmt: skip
_IN_TWO_PARTS = re.compile(r"(['\"])\s*(?:\|\||~|\+)\s*\1")
_COMMENT = re.compile(r"--|/\*|\{#|#|//")
_COLUMN = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")
_TEMPLATE = re.compile(r"\{\{|\}\}|\$\{|\{%|<[a-z_ -]+>|env_var", re.IGNORECASE)
_SHOWN_TYPES = {
    "AWS Access Key": "an AWS access key",
    "Basic Auth Credentials": "a password in a URL",
    "JSON Web Token": "a JSON web token",
    "Private Key": "a private key",
}
LONGEST_LINE = 4_000
"""Of a longer line, pieces that overlap are looked at: detectors of others may not be quick on all of it."""
_OVERLAP = 300
_LOOKS_AROUND = re.compile(r"\(\?:\(\?<=\\W\)\|\(\?<=\^\)\)|\(\?<?[=!](?:[^()\\]|\\.)*\)")

SECRET_FIX = "Use env_var('DBT_ENV_SECRET_…'), and replace the secret: it has been seen."


class SecretRules(Section):
    """What counts as a secret beside the lists of the policy."""

    names: list[str] | None = Field(
        None,
        description="Further names of what holds a secret, such as `license`: `license = 'aB3…'` is one then.",
    )
    patterns: list[Regex] | None = Field(
        None,
        description="Regular expressions (RE2) of further forms of secrets, such as `acme_[a-z0-9]{32}`.",
    )


SECRETS = Setting(
    "secrets",
    SecretRules,
    "What counts as a secret beside the lists of the policy.",
    {"names": All(), "patterns": All()},
    platform_alone=True,
)


class Secrets(Policy):
    """No file of a product holds a secret itself."""

    name = "secrets"
    title = "Secrets"
    description = (
        "No document, SQL, YAML, CSV, macro, Python or Markdown file, of packages neither, holds a secret itself. Under `off`, too, "
        "one is a warning."
    )
    set_by = "always, `governance.secrets`"
    setting = SECRETS
    looks_at = ("model", "snapshot", "seed", "source", "macro", "hook", "test", "package", "file", "document")

    def level(self, general: str, _setting: SecretRules | None) -> str:
        """Return the general level, and `warn` where that is `off`: whoever can read a file knows its secrets already."""
        return "warn" if general == "off" else general

    def check(self, project: Project, setting: SecretRules | None) -> Iterator[Finding]:
        """No document and no file holds a secret itself."""
        literal = [f for f in project.context.document_findings if f.code == "literal-secret"]
        yield from literal
        known = {(finding.file, finding.line) for finding in literal}
        rules = setting or SecretRules()
        search = _search(tuple(rules.names or ()), tuple(rules.patterns or ()))
        for file in project.context.files:
            content = file.read()
            if content is None:
                continue
            for line, kind in search.secrets_in(content.decode("utf-8", "replace"), file):
                if (file.shown, line) not in known:
                    yield Finding(
                        code="secret-in-file",
                        severity="warning",
                        kind="policy",
                        message=f"{file.shown} holds {kind}",
                        file=file.shown,
                        line=line,
                        fix=SECRET_FIX,
                        model=file.name,
                    )


@dataclass(frozen=True, slots=True)
class SecretSearch:
    """Looks for secrets in texts.

    Args:
        names: Further names of what holds a secret.
        patterns: Further forms.
    """

    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    _forms: list[tuple[str, Any, Any]] = field(default_factory=list)
    """What it is, how it is found, and who says whether it is one."""
    _before: list[Any] = field(default_factory=list)
    """RE2's set of forms, which reads a text once for all of them."""
    _together: list[int] = field(default_factory=list)
    """Which form each of the set is."""
    _alone: list[int] = field(default_factory=list)
    """Forms that RE2 cannot take."""

    def secrets_in(self, text: str, file: SourceText) -> list[tuple[int, str]]:
        """Return the lines that hold a secret, with what it is; each line once.

        Args:
            text: Of the file.
            file: Says of what kind it is.
        """
        found: dict[int, str] = {}
        for joined in dict.fromkeys((text, _IN_TWO_PARTS.sub(lambda each: "\n" * each[0].count("\n"), text))):
            for position, kind in self._formed(joined):
                found.setdefault(joined.count("\n", 0, position) + 1, kind)
            if not file.is_document:
                for position, kind in self._named(joined, file.name):
                    found.setdefault(joined.count("\n", 0, position) + 1, kind)
        if file.name.lower().endswith(".csv"):
            for line, kind in self._columns(text):
                found.setdefault(line, kind)
        return sorted(found.items())

    def _formed(self, text: str) -> Iterator[tuple[int, str]]:
        if not self._before:
            self._prepare()
        before = self._before[0]
        for number in (*self._alone, *(self._together[found] for found in before.Match(text) or ())):
            kind, pattern, judge = self._forms[number]
            for begin, piece in _pieces(text):
                for match in pattern.finditer(piece):
                    value = match.group()
                    if not _TEMPLATE.search(value) and judge(value):
                        yield begin + match.start() + len(value) - len(value.lstrip()), kind

    def _prepare(self) -> None:
        import re2

        options = re2.Options()
        options.log_errors = False
        # Where its automaton has no room, a set says that nothing matches.
        options.max_mem = 256 << 20
        before = re2.Set.SearchSet(options)
        for number, (kind, pattern, judge) in enumerate((*_detectors(), *self._further())):
            self._forms.append((kind, pattern, judge))
            flags = getattr(pattern, "flags", 0)
            # Without what looks around, it matches wherever the form itself does, and further.
            wider = _LOOKS_AROUND.sub("", pattern.pattern).replace("{50,1024}", "{50,}")
            try:
                if flags & re.VERBOSE:
                    raise re2.error("has spaces that mean nothing")
                before.Add(f"(?i){wider}" if flags & re.IGNORECASE else wider)
            except re2.error:
                self._alone.append(number)
            else:
                self._together.append(number)
        before.Compile()
        self._before.append(before)

    def _further(self) -> Iterator[tuple[str, Any, Any]]:
        for kind, pattern in FURTHER_FORMS:
            yield kind, re.compile(pattern), _always
        for pattern in self.patterns:
            yield "a secret of the platform's own form", compiled(pattern), _always

    def _named(self, text: str, name: str) -> Iterator[tuple[int, str]]:
        """Yield what is given to a name that secrets have: `password = '…'`, `secret '…'`, `pwd: …`."""
        if compiled(f"(?i)(?:{_names(self.names)})").search(text) is None:
            return
        is_code = name.lower().endswith((".sql", ".py"))
        for match in _assignment(self.names).finditer(text):
            begin = match.start("name")
            text_value = match.group("single") or match.group("next")
            quoted = text_value or match.group("double")
            value = quoted or match.group("bare") or ""
            called = match.group("name").lower()
            if _TEMPLATE.search(value) or not _is_like_a_secret(value, called, bool(text_value)):
                continue
            if not quoted and _COLUMN.fullmatch(value):
                continue
            line = text[text.rfind("\n", 0, begin) + 1 : begin]
            if not quoted and is_code and not _COMMENT.search(line):
                # A name of code: a column, a variable.
                continue
            kind = "a password" if called.endswith(PASSWORD_NAMES) else "a secret"
            yield begin, kind

    def _columns(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield the first row of a CSV file that has something in a column named like a secret."""
        first, _, _rest = text.partition("\n")
        named = re.compile(f"(?i)(?:.*[_-])?(?:{_names(self.names)})s?")
        try:
            header = next(csv.reader([first]), [])
        except csv.Error:
            return
        wanted = [
            number
            for number, column in enumerate(header)
            if named.fullmatch(column.strip()) or named.fullmatch("_".join(words_of(column)))
        ]
        wanted = [number for number in wanted if "".join(words_of(header[number])) not in ("pass", "sa")]
        if not wanted:
            return
        for line, row in enumerate(csv.reader(text.splitlines()[1:]), 2):
            if any(number < len(row) and row[number].strip() for number in wanted):
                yield line, f"values of a column {header[wanted[0]].strip()!r}"
                return


@cache
def _search(names: tuple[str, ...], patterns: tuple[str, ...]) -> SecretSearch:
    return SecretSearch(names, patterns)


def _always(_value: str) -> bool:
    return True


@cache
def _detectors() -> tuple[tuple[str, Any, Any], ...]:
    """Return the forms that detect-secrets knows: what it is, its pattern, and who says whether a value is one."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    found: list[tuple[str, Any, Any]] = []
    detector: Any
    for kind, detector in sorted(get_mapping_from_secret_type_to_class().items()):
        if kind in NOT_USED or "denylist" not in dir(detector):
            # The others measure how random a text looks, and take hashes for secrets.
            continue
        plugin = detector()
        judge = getattr(plugin, "is_formally_valid", None) or _always
        shown = _SHOWN_TYPES.get(kind, f"a secret ({kind})")
        found += [(shown, pattern, judge) for pattern in plugin.denylist]
    return tuple(found)


def _names(further: tuple[str, ...]) -> str:
    return "|".join((*SECRET_NAMES, *(re.escape(name) for name in further)))


@cache
def _assignment(further: tuple[str, ...]) -> re.Pattern[str]:
    names = _names(further)
    # What stands before the name is bounded, so that each place of a text is tried in constant time.
    return re.compile(
        rf"(?<![A-Za-z0-9])(?P<name>(?:[A-Za-z0-9]{{1,30}}[_.-]){{0,4}}(?:{names})s?)(?![A-Za-z0-9])['\"]?"
        r"(?:[ \t]{0,8}(?::=|=>|==|=|:)[ \t]{0,8}(?:'(?P<single>[^'\n]{6,200})'|\"(?P<double>[^\"\n]{6,200})\""
        r"|(?P<bare>[^\s'\",;(){}<>\[\]]{8,200}))|[ \t]{1,8}(?:by[ \t]{1,8})?'(?P<next>[^'\n]{6,200})')",
        re.IGNORECASE,
    )


def _is_like_a_secret(value: str, name: str, is_text: bool) -> bool:
    if " " in value.strip():
        return False
    if is_text and name.endswith(PASSWORD_NAMES):
        return True
    has_digit, has_letter = any(c.isdigit() for c in value), any(c.isalpha() for c in value)
    return has_digit and has_letter and len(value) >= 8


def _pieces(text: str) -> Sequence[tuple[int, str]] | Iterator[tuple[int, str]]:
    """Return a text with the place where it begins; where it has long lines, pieces of them."""
    if len(text) <= LONGEST_LINE or ("\n" in text and max(map(len, text.split("\n"))) <= LONGEST_LINE):
        return [(0, text)]
    return _lines(text)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    begin = 0
    for line in text.split("\n"):
        for at in range(0, max(len(line), 1), LONGEST_LINE - _OVERLAP):
            yield begin + at, line[at : at + LONGEST_LINE]
        begin += len(line) + 1
