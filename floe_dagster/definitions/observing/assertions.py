"""dbt's tests and the policies as assertions of OpenLineage, on the table that they looked at."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from floe_dagster.definitions.observing.times import when
from floe_dagster.observability.lineage.datasets import DatasetName
from floe_dagster.observability.lineage.emitter import LineageEmitter
from floe_dagster.schemas.product_index import Asset, Check

if TYPE_CHECKING:
    from floe_dagster.observability.lineage.events import ProductLineage
    from floe_dagster.observability.lineage.facets import Assertion


class TableTests:
    """Keeps the results of a run's tests until it is known which snapshot they judged.

    Args:
        emitter: Takes the events.
        lineage: Builds them; None where nobody asks for any.
        assets: Of the index, by dbt's unique id.
        tests: The same.
        policies: Results of the policies by name, as in the bundle's report.
        times: When each test began and ended, in seconds since the epoch.
        dataset: Gives what an asset's dataset is called, and its snapshot.
    """

    def __init__(
        self,
        emitter: LineageEmitter,
        lineage: ProductLineage | None,
        assets: Mapping[str, Asset],
        tests: Mapping[str, Check],
        policies: Mapping[str, Any],
        times: Mapping[str, tuple[float, float]],
        dataset: Callable[[Asset], tuple[DatasetName, str | None]],
    ) -> None:
        self._emitter = emitter
        self._lineage = lineage
        self._assets = assets
        self._tests = tests
        self._policies = policies
        self._times = times
        self._dataset = dataset
        self._waiting: dict[str, dict[str, Any]] = {}

    def add(self, results: Mapping[str, Any]) -> None:
        """Take the results of tests.

        Args:
            results: By dbt's unique id of the test.
        """
        for key, result in results.items():
            if result["status"] != "skipped":
                self._waiting.setdefault(self._tests[key].asset, {})[key] = result

    def waiting(self) -> set[str]:
        """Return dbt's unique ids of the assets whose tests are not told yet."""
        return set(self._waiting)

    def tell(self, asset_id: str) -> None:
        """Tell of an asset's tests, where there are any that are not told yet.

        Args:
            asset_id: dbt's unique id.
        """
        results = self._waiting.pop(asset_id, None)
        if results is None or self._lineage is None:
            return
        from floe_dagster.observability.lineage.facets import input_dataset

        asset = self._assets[asset_id]
        assertions = [_assertion(self._tests[key], result) for key, result in results.items()]
        name, snapshot = self._dataset(asset)
        tested = [
            input_dataset(name, snapshot=snapshot, assertions=[*assertions, *self._governed(asset.name)])
        ]
        times = [self._times[key] for key in results if key in self._times]
        now = time.time()
        begun = min((one[0] for one in times), default=now)
        ended = max((one[1] for one in times), default=now)
        failed = [one for one in assertions if not one.success and one.severity == "error"]
        error = f"failed: {', '.join(one.name for one in failed)}" if failed else None
        state = "FAIL" if failed else "COMPLETE"
        self._emitter.emit(self._lineage.tests_event("START", when(begun), asset, []))
        self._emitter.emit(
            self._lineage.tests_event(state, when(ended), asset, assertions, inputs=tested, error=error)
        )

    def _governed(self, model: str) -> list[Assertion]:
        from floe_dagster.observability.lineage.facets import Assertion

        return [
            Assertion(
                name=name,
                kind=f"policy:{name}",
                success=not (found := _findings(policy, model)),
                severity="error" if policy["status"] == "failed" else "warn",
                description=f"governance, level {policy['level']}",
                actual=str(found),
            )
            for name, policy in self._policies.items()
            if policy.get("status") != "off"
        ]


def _assertion(check: Check, result: Mapping[str, Any]) -> Assertion:
    from floe_dagster.observability.lineage.facets import Assertion

    failures = result.get("failures")
    return Assertion(
        name=check.name,
        kind=check.kind or "custom_sql",
        success=result["status"] == "pass",
        severity=check.severity,
        column=check.column,
        description=check.description or None,
        actual=None if failures is None else str(failures),
    )


def _findings(policy: Mapping[str, Any], model: str) -> int:
    return sum(finding.get("model") == model for finding in policy.get("findings", ()))
