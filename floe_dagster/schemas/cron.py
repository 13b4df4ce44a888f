"""Cron expressions, as far as a document can be read without Dagster.

Dagster decides what a schedule may say, and is asked at compile time (see `floe_dagster.compilation.orchestrator`). What is
refused here Dagster refuses, too; it is refused early, since a person with an editor has no Dagster at hand.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from floe_dagster.schemas.base import NotAllowedError

CRON_ALLOWED = (
    "five fields: minute hour day month weekday, for example 0 6 * * *; or @hourly, @daily and the like"
)
CRON_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
"""Name, least and greatest number of each field, in their order."""


def _check_cron(text: str) -> str:
    parts = text.split()
    if text.startswith("@"):
        return text
    if len(parts) != len(CRON_FIELDS):
        raise NotAllowedError(
            f"has {len(parts)} fields", allowed=CRON_ALLOWED, fix="Write all five fields, and no seconds."
        )
    for part, (name, low, high) in zip(parts, CRON_FIELDS, strict=True):
        for item in part.split(","):
            if item.isdecimal() and not low <= int(item) <= high:
                raise NotAllowedError(
                    f"has the {name} {item}", allowed=f"{low} to {high}", fix=f"Correct the {name}."
                )
    return text


def is_plain(cron: str) -> bool:
    """Tell whether an expression has numbers, `*` and `*/n` alone, and a day that every month has.

    Nobody has to ask Dagster about such a one, and to import it for that.
    """
    parts = cron.split()
    if len(parts) != len(CRON_FIELDS):
        return False
    for part, (name, low, high) in zip(parts, CRON_FIELDS, strict=True):
        number = part.removeprefix("*/")
        stepped = number != part
        if part != "*" and not (number.isascii() and number.isdecimal() and len(number) <= 2):
            return False
        greatest = 28 if name == "day" else high
        if part != "*" and not (1 if stepped else low) <= int(number) <= greatest:
            return False
    return True


Cron = Annotated[str, AfterValidator(_check_cron)]
