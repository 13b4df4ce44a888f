"""Exemptions: what the platform does not ask of single models, until a day."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from floe_dagster.compilation.governance import PlacedExemption
from floe_dagster.compilation.suggestions import did_you_mean, some
from floe_dagster.findings import Finding
from floe_dagster.schemas.manifest import Exemption


def today() -> datetime.date:
    """Return the day by which exemptions end, everywhere the same."""
    return datetime.datetime.now(datetime.UTC).date()


def in_force(
    placed: Iterable[PlacedExemption], product: str, day: datetime.date | None = None
) -> list[Exemption]:
    """Return the exemptions that count for a product.

    Args:
        placed: Those of the manifests.
        product: Name of the product.
        day: The day that counts; the present one when None.
    """
    day = day or today()
    return [each.exemption for each in _of_product(placed, product) if not each.exemption.is_over(day)]


def last_day(placed: Iterable[PlacedExemption], product: str) -> datetime.date | None:
    """Return the day on which the first exemption of a product ends; None where it has none.

    Args:
        placed: Those of the manifests.
        product: Name of the product.
    """
    return min((each.exemption.until for each in _of_product(placed, product)), default=None)


def check_exemptions(
    placed: Sequence[PlacedExemption],
    product: str,
    policies: Collection[str],
    day: datetime.date | None = None,
) -> list[Finding]:
    """Return the exemptions whose last day has passed, which are errors, and those of a policy that there is not.

    Args:
        placed: Those of the manifests.
        product: Name of the product.
        policies: Names of those that there are.
        day: The day that counts; the present one when None.
    """
    day = day or today()
    findings = []
    for each in _of_product(placed, product):
        exemption = each.exemption
        if exemption.is_over(day):
            findings.append(
                _finding(
                    each,
                    "exemption-over",
                    "error",
                    f"the exemption of {exemption.model!r} from {exemption.policy} has ended on {exemption.until}",
                    f"Mend {exemption.model}, or have {exemption.owner} decide anew and state a later day in until.",
                    "until",
                    str(exemption.until),
                    f"{day} or later",
                )
            )
        if exemption.policy not in policies:
            findings.append(
                _finding(
                    each,
                    "exemption-of-nothing",
                    "warning",
                    f"there is no policy {exemption.policy!r} to be exempt from",
                    did_you_mean(exemption.policy, policies) or "Remove the exemption, or name a policy.",
                    "policy",
                    exemption.policy,
                    some(policies),
                )
            )
    return findings


def check_exempt_names(
    placed: Sequence[PlacedExemption], product: str, manifest: Mapping[str, Any], files: Iterable[str]
) -> list[Finding]:
    """Return a warning for each exemption that names nothing of the product.

    Args:
        placed: Those of the manifests.
        product: Name of the product.
        manifest: dbt's.
        files: Paths of the product's files, below its folder.
    """
    resources = [
        each
        for kind in ("nodes", "sources", "macros", "unit_tests")
        for each in (manifest.get(kind) or {}).values()
    ]
    disabled = [each for nodes in (manifest.get("disabled") or {}).values() for each in nodes]
    names = {str(each["name"]) for each in (*resources, *disabled)}
    names |= {str(each["package_name"]) for each in resources} | {*files}
    return [
        _finding(
            each,
            "exemption-of-nothing",
            "warning",
            f"the exemption from {each.exemption.policy} names {each.exemption.model!r}, which {product} does not have",
            did_you_mean(each.exemption.model, names)
            or "Remove the exemption; where another product has it, state that product's name in `product`.",
            "model",
            each.exemption.model,
            None,
        )
        for each in _of_product(placed, product)
        if each.exemption.model not in names
    ]


def _of_product(placed: Iterable[PlacedExemption], product: str) -> Iterable[PlacedExemption]:
    return [each for each in placed if each.exemption.product in (None, product)]


def _finding(
    placed: PlacedExemption,
    code: str,
    severity: Any,
    message: str,
    fix: str,
    field: str,
    found: str,
    allowed: str | None,
) -> Finding:
    return Finding(
        code=code,
        severity=severity,
        kind="policy",
        message=message,
        file=placed.file,
        line=placed.line,
        field=f"governance.exemptions[].{field}",
        found=found,
        allowed=allowed,
        fix=fix,
    )
