"""Personal data: columns that hold it are classified."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from floe_dagster.findings import Finding
from floe_dagster.policies.model import Project, meta_of, tags_of
from floe_dagster.policies.policy import Policy
from floe_dagster.schemas.governed import Setting
from floe_dagster.schemas.merging import ranked

PERSONAL_DATA = re.compile(
    r"(?:^|_)(e_?mail|phone|mobile|ssn|social_security|national_id|passport|iban|tax_id|birth_?date|"
    r"date_of_birth|dob|first_name|last_name|full_name|surname|maiden_name|street|home_address|postal_code|"
    r"zip_code|ip_address|credit_card|card_number|driver_licen[cs]e)(?:$|_)"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
NOT_PERSONAL = re.compile(r"(?:^|_)(?:count|domain|hash|is|has|valid|flag)(?:$|_)")
PERSONAL_TAGS = frozenset({"pii", "personal", "personal_data"})


class PersonalData(Policy):
    """Columns with personal data carry `meta.classification`."""

    name = "personal_data"
    title = "Personal data"
    description = (
        "With `pii_encryption: required`, columns tagged `pii` or named like personal data carry "
        "`meta.classification`."
    )
    set_by = "`governance.pii_encryption: required`"
    setting = Setting(
        "pii_encryption",
        Literal["required", "optional"],
        "required: columns with personal data must be classified.",
        ranked("optional", "required"),
    )

    def check(self, project: Project, setting: str | None) -> Iterator[Finding]:
        """Columns with personal data carry `meta.classification`, where encryption is required."""
        if setting != "required":
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
