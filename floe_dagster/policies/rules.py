"""The rules. Each gets a project and yields findings; how severe they are is not theirs to say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project, meta_of, tags_of

NAMING_PATTERNS: Mapping[str, str] = {
    "medallion": r"^(bronze|silver|gold)_[a-z][a-z0-9_]*$",
    "kimball": r"^(stg|int|dim|fct|fact|bridge|agg|mart|snap)_[a-z][a-z0-9_]*$",
}
TIERS = ("bronze", "silver", "gold")
TIER_OF_FOLDER: Mapping[str, str] = {
    "bronze": "bronze",
    "staging": "bronze",
    "raw": "bronze",
    "silver": "silver",
    "intermediate": "silver",
    "gold": "gold",
    "marts": "gold",
    "mart": "gold",
}
PERSONAL_DATA = re.compile(
    r"(?:^|_)(e_?mail|phone|mobile|ssn|social_security|national_id|passport|iban|tax_id|birth_?date|"
    r"date_of_birth|dob|first_name|last_name|full_name|surname|maiden_name|street|home_address|postal_code|"
    r"zip_code|ip_address|credit_card|card_number|driver_licen[cs]e)(?:$|_)"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
NOT_PERSONAL = re.compile(r"(?:^|_)(?:count|domain|hash|is|has|valid|flag)(?:$|_)")
PERSONAL_TAGS = frozenset({"pii", "personal", "personal_data"})
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


def naming(project: Project) -> Iterator[Finding]:
    """Models are called as the naming rules say."""
    rules = project.context.naming
    if rules is None or (rules.pattern is None and not rules.custom_patterns):
        return
    name = rules.pattern or "custom"
    patterns = [NAMING_PATTERNS[name]] if name in NAMING_PATTERNS else list(rules.custom_patterns or ())
    compiled = [re.compile(pattern) for pattern in patterns]
    for node in project.models:
        if not any(pattern.fullmatch(node["name"]) for pattern in compiled):
            yield project.finding(
                node,
                f"model {node['name']!r} does not follow the {name} naming",
                f"Rename it so that it matches {' or '.join(patterns)}."
                if patterns
                else "Have custom_patterns added beside `pattern: custom`: without them no name is allowed.",
                "model-name",
            )


def documentation(project: Project) -> Iterator[Finding]:
    """Models and their columns are described, where `require_descriptions` asks for it."""
    gates = project.context.quality_gates
    if gates is None or not gates.require_descriptions:
        return
    for node in project.models:
        if not (node.get("description") or "").strip():
            yield project.finding(
                node, f"model {node['name']!r} has no description", "Add `description:`.", "model-description"
            )
        for column in node["columns"].values():
            if not (column.get("description") or "").strip():
                yield project.finding(
                    node,
                    f"column {column['name']!r} of {node['name']!r} has no description",
                    "Add `description:`.",
                    "column-description",
                    column=column["name"],
                )


def test_coverage(project: Project) -> Iterator[Finding]:
    """Enough models have a data test."""
    gates = project.context.quality_gates
    if gates is None or gates.minimum_test_coverage is None or not project.models:
        return
    untested = [node for node in project.models if not project.tests.get(node["unique_id"])]
    coverage = 100 * (1 - len(untested) / len(project.models))
    if coverage >= gates.minimum_test_coverage:
        return
    for node in untested:
        yield project.finding(
            node,
            f"model {node['name']!r} has no data test; coverage of the product is {coverage:.0f} %, "
            f"{gates.minimum_test_coverage:g} % is asked for",
            "Add `data_tests:`, for example unique and not_null on its key.",
            "test-coverage",
        )


test_coverage.__test__ = False  # type: ignore[attr-defined]  # pytest must not collect it


def ownership(project: Project) -> Iterator[Finding]:
    """Every model has somebody who answers for it."""
    if project.context.owner:
        return
    for node in project.models:
        if not meta_of(node).get("owner") and not node.get("group"):
            yield project.finding(
                node,
                f"model {node['name']!r} has no owner",
                "Add `config: {meta: {owner: …}}`, or metadata.owner in floe.yaml.",
                "model-owner",
            )


def tier_order(project: Project) -> Iterator[Finding]:
    """A model reads its own tier or the one right below."""
    for node in project.models:
        tier = tier_of(node, project.context.tiers)
        if tier is None:
            continue
        for upstream_id in node["depends_on"]["nodes"]:
            upstream = project.by_id.get(upstream_id)
            below = tier_of(upstream, project.context.tiers) if upstream else None
            if upstream is None or below is None or upstream["resource_type"] == "seed":
                continue
            step = TIERS.index(tier) - TIERS.index(below)
            if step not in (0, 1):
                how = "skips silver" if step > 1 else "goes upward"
                yield project.finding(
                    node,
                    f"{tier} model {node['name']!r} reads {below} model {upstream['name']!r}, which {how}",
                    f"Read a {TIERS[max(TIERS.index(tier) - 1, 0)]} model, or correct the tier of one of the two.",
                    "tier-order",
                )


def tier_of(node: Mapping[str, Any] | None, tiers: Mapping[str, str]) -> str | None:
    """Return a model's tier: its transform's, else that of its folder."""
    if node is None:
        return None
    if node["name"] in tiers:
        return tiers[node["name"]]
    for folder in reversed(node["fqn"][1:-1]):
        if folder in TIER_OF_FOLDER:
            return TIER_OF_FOLDER[folder]
    return None


def personal_data(project: Project) -> Iterator[Finding]:
    """Columns with personal data carry `meta.classification`, where encryption is required."""
    if project.context.pii_encryption != "required":
        return
    for node in project.models:
        for column in node["columns"].values():
            name = _CAMEL.sub("_", column["name"]).lower()
            tagged = bool(tags_of(column) & PERSONAL_TAGS)
            named = PERSONAL_DATA.search(name) and not NOT_PERSONAL.search(name)
            if (tagged or named) and not meta_of(column).get("classification"):
                how = "is tagged as" if tagged else "is named like"
                yield project.finding(
                    node,
                    f"column {column['name']!r} of {node['name']!r} {how} personal data and has no classification",
                    "Add `config: {meta: {classification: confidential}}` to the column.",
                    "unclassified-personal-data",
                    column=column["name"],
                )


def secrets(project: Project) -> Iterator[Finding]:
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
        texts = [("meta", json.dumps(meta_of(node), default=str)), ("description", node.get("description"))]
        texts += [
            (f"column {c['name']!r}", json.dumps([c, meta_of(c)], default=str))
            for c in node["columns"].values()
        ]
        for place, text in texts:
            for kind, pattern in SECRET_PATTERNS.items():
                if text and pattern.search(text):
                    yield project.finding(
                        node, f"the {place} of {node['name']!r} holds {kind}", SECRET_FIX, "secret-in-model"
                    )


def plugins(project: Project) -> Iterator[Finding]:
    """Only approved plugins are used."""
    context = project.context
    uses = [(category, category, used) for category, used in context.plugins_used.items()]
    uses += [("compute", place, used) for place, used in context.further_engines.items()]
    for category, place, used in uses:
        approved = (context.approved_plugins or {}).get(category)
        if approved is not None and used not in approved:
            file, line = context.plugin_places.get(place, (None, None))
            yield Finding(
                code="unapproved-plugin",
                severity="warning",
                kind="policy",
                message=f"{category} {used!r} is not approved",
                file=file,
                line=line,
                field=f"plugins.{place}.type",
                found=used,
                allowed=", ".join(approved),
                fix=f"Use an approved {category}, or have {used} added to approved_plugins.",
            )


def agreement(project: Project) -> Iterator[Finding]:
    """Every model of the project is named by a transform."""
    yield from (f for f in project.context.document_findings if f.policy == "agreement")
