"""What a new compilation changes: for those who read the tables, for governance, for the platform."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from floe_dagster.compilation.bundle import Bundle
from floe_dagster.compilation.engine_change import Build
from floe_dagster.compilation.result import CompileResult
from floe_dagster.schemas.product_index import Asset, ProductIndex

ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs.

    Args:
        area: `consumers`, `governance` or `platform`.
        path: Dotted, list items by name, for example `tables.orders.columns.id.type`.
        before: `ABSENT` where there was none; a whole mapping where a table or column is new or gone.
        after: As `before`.
    """

    area: str
    path: str
    before: Any
    after: Any

    def to_dict(self) -> dict[str, Any]:
        """Return the four fields as JSON values."""
        return {"area": self.area, "path": self.path, "before": self.before, "after": self.after}

    def to_row(self) -> tuple[str, str, str, str]:
        """Return the four cells that a person reads; a mapping is `new` or `gone`, not spelled out."""
        return self.area, self.path, _cell(self.before, "gone"), _cell(self.after, "new")


@dataclass(frozen=True, slots=True)
class ProductView:
    """What a compilation means to others.

    Args:
        areas: Area by area, as nested values that can be compared.
        build: Where and how it is built; None for an artifact that is older than that.
    """

    areas: Mapping[str, Any]
    build: Build | None = None

    @classmethod
    def of(cls, artifact: Mapping[str, Any], index: ProductIndex, report: Mapping[str, Any]) -> ProductView:
        """Return the view of one compilation.

        Args:
            artifact: CompiledArtifacts as JSON values.
            index: Of that compilation.
            report: See `CompileResult.summary`.
        """
        product = asdict(index.product)
        names = {asset.id: asset.name for asset in index.assets}
        checks: dict[str, dict[str, str]] = {}
        for check in index.checks:
            checks.setdefault(names[check.asset], {})[check.name] = check.severity
        assets: dict[str, dict[str, Any]] = {"tables": {}, "unpublished": {}}
        for asset in index.assets:
            kind = "tables" if asset.published else "unpublished"
            assets[kind][asset.name] = _table(asset, names, checks.get(asset.name, {})) | {
                "engine": asset.engine
            }
        settings = ("name", "version", "description", "owner", "labels", "schedule", "freshness")
        governance = report.get("governance", {})
        build = Build.of(artifact, index)
        return cls(
            {
                "consumers": {
                    "product": {name: product[name] for name in settings},
                    "domain": artifact["identity"]["domain"],
                    **assets,
                },
                "governance": {
                    **{each["field"]: each["value"] for each in governance.get("decisions", ())},
                    "enforcement_result": artifact["enforcement_result"],
                },
                "platform": {
                    "plugins": artifact["plugins"],
                    "observability": artifact["observability"],
                    "mode": artifact["mode"],
                    "manifests": {
                        layer["name"]: layer["version"] for layer in artifact["inheritance_chain"] or ()
                    },
                    "resources": product["resources"],
                },
            },
            build,
        )

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> ProductView:
        """Return the view of a bundle.

        Raises:
            BundleError: It cannot be read.
        """
        return cls.of(bundle.artifact().model_dump(mode="json"), bundle.index(), bundle.report())

    @classmethod
    def of_result(cls, result: CompileResult) -> ProductView | None:
        """Return the view of a compilation; None where it was blocked before there was an artifact."""
        if result.artifact is None or result.index is None:
            return None
        return cls.of(result.artifact.model_dump(mode="json"), result.index, result.summary)


def product_changes(before: ProductView | None, after: ProductView) -> list[Change]:
    """Return every leaf that differs, in the order consumers, governance, platform; all of `after` when new."""
    changes = []
    for area, new in after.areas.items():
        old = before.areas.get(area, {}) if before else {}
        # One level deeper, so that a first compilation lists its tables and fields and not just three areas.
        for path, was, becomes in _walk(old, new, ""):
            if not before and isinstance(becomes, dict):
                changes += [
                    Change(area, f"{path}.{key}", ABSENT, value)
                    for key, value in becomes.items()
                    if value not in (None, {}, [])
                ]
            elif not before and becomes is None:
                continue
            else:
                changes.append(Change(area, path, was, becomes))
    return changes


def _table(asset: Asset, names: Mapping[str, str], checks: dict[str, str]) -> dict[str, Any]:
    return {
        "type": asset.type,
        "materialized": asset.materialized,
        "tier": asset.group,
        "description": asset.description,
        "owners": list(asset.owners),
        "tags": list(asset.tags),
        "reads": sorted(names[each] for each in asset.deps if each in names),
        "sql": asset.checksum,
        "columns": {
            column.name: {
                "type": column.type,
                "description": column.description,
                "tags": list(column.tags),
                "classification": column.classification,
            }
            for column in asset.columns
        },
        "checks": checks,
    }


def _walk(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            inner = f"{path}.{key}" if path else str(key)
            yield from _walk(before.get(key, ABSENT), after.get(key, ABSENT), inner)
    elif before != after:
        yield path, before, after


def _cell(value: Any, whole: str) -> str:
    if isinstance(value, dict):
        return whole
    if value is None or value == ABSENT:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return str(value)
