"""Personal data: columns that hold it are classified."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project, meta_of, tags_of
from floe_dagster.policies.policy import Policy
from floe_dagster.policies.words import contains, words_of
from floe_dagster.schemas.base import Section
from floe_dagster.schemas.governed import Setting
from floe_dagster.schemas.merging import All, Common, ranked

PERSONAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "names of people": (
        "first name", "last name", "full name", "middle name", "maiden name", "given name", "family name", "surname",
        "forename", "nickname", "user name", "customer name", "contact name", "person name", "employee name", "client name",
        "patient name", "member name", "guest name", "subscriber name", "passenger name", "student name", "recipient name",
        "account holder", "card holder",
    ),
    "ways to reach somebody": (
        "email", "mail", "phone", "telephone", "tel", "mobile", "cellphone", "fax", "msisdn", "address", "home addr", "street",
        "house number", "postal code", "postcode", "zip", "zip code", "whatsapp",
    ),
    "numbers of a person": (
        "ssn", "social security", "national id", "national insurance", "nino", "personnummer", "bsn", "cpf", "aadhaar", "nif",
        "identity card", "id card", "passport", "tax id", "tax number", "steuer id", "steuernummer", "driver licence",
        "driver license", "driving licence", "driving license", "iban", "bank account", "credit card", "card number",
        "cc number", "cvv", "licence plate", "license plate", "health insurance number",
    ),
    "what a person is": (
        "birth", "birth date", "birthday", "date of birth", "dob", "gender", "sex", "nationality", "ethnicity", "religion",
        "marital status", "salary", "wage", "diagnosis", "medical condition", "blood type", "fingerprint", "biometric",
    ),
    "what leads to a device": ("ip", "ip addr", "ip address", "mac address", "imei", "device id", "advertising id"),
    "what lets somebody in": (
        "password", "passwd", "passphrase", "pwd", "pin code", "api key", "access token", "secret key", "private key",
    ),
}  # fmt: skip
"""By what they tell; words, in the singular. A name of a column counts that has one of them as its words, or in one word."""
_FLAGS = frozenset({"is", "has", "can", "was", "n", "num", "count"})
_MEASURES = frozenset(
    {
        "count",
        "flag",
        "valid",
        "verified",
        "domain",
        "total",
        "ratio",
        "rate",
        "share",
        "percent",
        "length",
        "type",
        "status",
    }
)
PERSONAL_TAGS = frozenset({"pii", "personal", "personal_data", "sensitive", "gdpr"})
PERSONAL_META = frozenset({"pii", "is_pii", "contains_pii", "personal", "personal_data", "sensitive"})
CLASSIFICATIONS = ("public", "internal", "confidential", "restricted")
"""What `meta.classification` may say where the platform lists nothing of its own."""
FOR_EVERYBODY = "public"
"""The classification that personal data cannot have."""


class PersonalDataRules(Section):
    """What counts as personal data, and how it may be classified."""

    names: list[str] | None = Field(
        None,
        description="Further names of columns that hold personal data, in words such as `loyalty number`; `loyaltyNumber`, "
        "`loyalty_numbers` and `customer_loyalty_number` are meant as well.",
    )
    classifications: list[str] | None = Field(
        None,
        description="What meta.classification may say: public, internal, confidential and restricted when absent.",
    )


PERSONAL_DATA = Setting(
    "personal_data",
    PersonalDataRules,
    "What counts as personal data beside the list of the policy, and how it may be classified.",
    {"names": All(), "classifications": Common()},
    platform_alone=True,
)


@dataclass(frozen=True, slots=True)
class PersonalNames:
    """Names of columns that hold personal data.

    Args:
        further: Those of the platform, beside the list of the policy.
    """

    further: tuple[str, ...] = ()

    def entries(self) -> tuple[tuple[str, ...], ...]:
        """Return them as words."""
        listed = (name for names in PERSONAL_NAMES.values() for name in names)
        return tuple(tuple(words_of(name)) for name in (*self.further, *listed))


def is_named_like_personal_data(
    name: str, entries: Collection[tuple[str, ...]], *, holds_text: bool = False
) -> bool:
    """Tell whether a column's name is one of personal data.

    Args:
        name: Of the column.
        entries: From `PersonalNames`.
        holds_text: The column is known to hold text: then `is_email` and `email_count` are names like others.
    """
    words = words_of(name)
    if contains(name, entries) is None:
        return False
    flagged = words[0] in _FLAGS and contains(" ".join(words[1:]), entries) is not None
    # Where the rest says nothing, the word belongs to the name: marital status.
    measured = words[-1] in _MEASURES and contains(" ".join(words[:-1]), entries) is not None
    return holds_text or not (flagged or measured)


class PersonalData(Policy):
    """Columns with personal data carry `meta.classification`."""

    name = "personal_data"
    title = "Personal data"
    description = (
        "With `pii_encryption: required`, columns tagged `pii` or named like personal data carry `meta.classification`, one "
        "of the platform's and not `public`."
    )
    set_by = "`governance.pii_encryption: required`, `governance.personal_data`"
    setting = Setting(
        "pii_encryption",
        Literal["required", "optional"],
        "required: columns with personal data must be classified.",
        ranked("optional", "required"),
    )
    further_settings = (PERSONAL_DATA,)
    looks_at = ("model", "snapshot", "seed", "package")

    def check(self, project: Project, setting: str | None) -> Iterator[Finding]:
        """Columns with personal data carry `meta.classification`, where encryption is required."""
        if setting != "required":
            return
        rules = project.context.settings.get(PERSONAL_DATA.name) or PersonalDataRules()
        entries = PersonalNames(tuple(rules.names or ())).entries()
        allowed = CLASSIFICATIONS if rules.classifications is None else tuple(rules.classifications)
        for node in (*project.models, *project.seeds):
            for column in node["columns"].values():
                yield from _check_column(project, node, column, entries, allowed)


def _check_column(
    project: Project,
    node: Mapping[str, Any],
    column: Mapping[str, Any],
    entries: Collection[tuple[str, ...]],
    allowed: Collection[str],
) -> Iterator[Finding]:
    tagged = is_marked(column)
    is_personal = tagged or is_named_like_personal_data(column["name"], entries)
    stated = meta_of(column).get("classification")
    what = f"column {column['name']!r} of {node['name']!r}"
    values = " or ".join(value for value in allowed if value != FOR_EVERYBODY)
    if is_personal and not stated:
        yield project.finding(
            node,
            f"{what} {'is tagged as' if tagged else 'is named like'} personal data and has no classification",
            f"Add `config: {{meta: {{classification: {_example(allowed)}}}}}` to the column.",
            "unclassified-personal-data",
            column=column["name"],
        )
    elif stated and str(stated) not in allowed:
        yield project.finding(
            node,
            f"{what} has the classification {str(stated)!r}, which the platform does not have",
            f"Write one of {', '.join(allowed)}.",
            "unknown-classification",
            column=column["name"],
        )
    elif is_personal and str(stated) == FOR_EVERYBODY:
        yield project.finding(
            node,
            f"{what} holds personal data and is classified as {FOR_EVERYBODY}",
            f"Write {values}." if values else "Give the column another name, if it holds none.",
            "public-personal-data",
            column=column["name"],
        )


def is_marked(column: Mapping[str, Any]) -> bool:
    """Tell whether a column is said to hold personal data, by a tag or in its `meta`.

    Args:
        column: Of dbt's manifest.
    """
    tags = {tag.lower().replace("-", "_") for tag in tags_of(column)}
    meta = meta_of(column)
    return bool(tags & PERSONAL_TAGS) or any(meta.get(key) is True for key in PERSONAL_META)


def _example(allowed: Collection[str]) -> str:
    return (
        "confidential" if "confidential" in allowed else next((v for v in allowed if v != FOR_EVERYBODY), "…")
    )
