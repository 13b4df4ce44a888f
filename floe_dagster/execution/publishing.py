"""The publication of what passed the audit of one phase: each table by itself, in the order of the graph."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from floe_dagster.execution.audit import SKIPPED, Audit
from floe_dagster.execution.batches import batch_properties
from floe_dagster.execution.built_columns import (
    STRICT,
    ColumnReport,
    RelationNames,
    check_columns,
)
from floe_dagster.execution.context import RunContext
from floe_dagster.execution.progress import ProgressLog
from floe_dagster.execution.publications import Publications, in_graph_order, publication_request
from floe_dagster.execution.results import Built, Checked, Published, RelationDescription, Result
from floe_dagster.execution.workspaces.base import BuiltRelations, PublicationRequest, Publisher, Workspace
from floe_dagster.faults import fault_message, is_fault, presentable
from floe_dagster.iceberg.errors import CatalogError, NotUsableError, PublicationError, is_remote_failure
from floe_dagster.iceberg.publication import PublicationResult
from floe_dagster.schemas.compute import ENGINES
from floe_dagster.schemas.product_index import Asset, ProductIndex

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

GIVE_UP_AFTER = 3
"""So many tables that the catalog or the storage does not take mean that it is away altogether."""


class PhasePublication:
    """Publishes what one phase has built, and says what became of it.

    Args:
        context: Of the run.
        index: Of the bundle.
        mark: Snapshot properties by which attempts of the same run know each other's work.
        workspace: Where dbt has built.
        outcome: Of the phase's audit.
        reported: Unique ids of the tests whose result the run has yielded; those of this phase are added.
        columns: Takes what is found of built columns.
    """

    def __init__(
        self,
        context: RunContext,
        index: ProductIndex,
        mark: Mapping[str, str],
        workspace: Workspace,
        outcome: Audit,
        reported: set[str],
        columns: ColumnReport | None = None,
    ) -> None:
        self.columns = ColumnReport() if columns is None else columns
        self.context = context
        self.index = index
        self.slug = index.product.slug
        self.assets = index.assets_by_id()
        self.properties = {
            **mark,
            "floe.dagster-run-id": context.identity.run_id,
            **context.identity.properties,
        }
        self.workspace = workspace
        self.outcome = outcome
        self.reported = reported
        self.progress = ProgressLog(context.log)
        self.refused: dict[str, str] = {}
        """Why a table is not published, by unique id."""
        self.try_again = False
        """Whether another try may help against that."""

    def results(self, catalog: Catalog, todo: list[str]) -> Iterator[Result]:
        """Publish, and yield each asset as it stands, with the results of its tests.

        Args:
            catalog: From `open_catalog`.
            todo: Unique ids of what is clean and was asked for, each after those that it reads.

        Raises:
            CatalogError: Catalog or storage do not take several tables.
            Exception: What concerns all tables, as an engine that is away.
        """
        lost = 0
        forbidden = transient = False
        checked = self._checked()
        with (
            self.workspace.built(catalog) as relations,
            self.progress,
            Publications(relations.publisher, self._publish) as publications,
        ):
            names = self._names(todo)
            todo = [key for key in todo if not self._withholds(relations, names, key)]
            relations.stage([self._request(self.assets[key]) for key in todo if self.assets[key].published])
            for key, published in in_graph_order(publications, self.assets, todo, self.refused):
                if isinstance(published, PublicationError | CatalogError):
                    self.refused[key] = str(published)
                    forbidden = forbidden or isinstance(published, NotUsableError)
                    lost += isinstance(published, CatalogError)
                    transient = transient or (isinstance(published, PublicationError) and published.transient)
                    if lost >= GIVE_UP_AFTER:
                        raise published
                    continue
                built = self._built(relations, key, published)
                self.context.observer.done(built)
                yield built
                # Right after its asset: what fails later must not take these results along.
                yield from checked.pop(key, ())
        for remaining in checked.values():
            yield from remaining
        for key, reason in self.refused.items():
            self.context.observer.refused(key, reason)
        self.try_again = (lost > 0 and not forbidden) or transient

    def _names(self, todo: list[str]) -> RelationNames:
        # All that a phase builds is one engine's.
        engine = self.assets[todo[0]].engine if todo else ""
        known = {key: asset.seen_by(engine) for key, asset in self.assets.items()} if todo else {}
        return RelationNames(known, ENGINES[engine].dialect if todo else "")

    def _withholds(self, relations: BuiltRelations, names: RelationNames, key: str) -> bool:
        """Tell whether an asset is refused for what was built, and take note of what is wrong with it."""
        asset = self.assets[key]
        if blocked := next((up for up in asset.deps if up in self.refused), None):
            self.refused[key] = f"it reads {self.assets[blocked].name}, which was not published"
            return True
        if undeclared := names.undeclared_reads(asset, self.outcome.built[key].get("compiled_code")):
            self.refused[key] = (
                f"its SQL reads {', '.join(undeclared)} by name: read with ref(), so that it is built after what it reads and "
                "withheld with it"
            )
            return True
        if not asset.published:
            return False
        self.columns.looked_at.append(asset.name)
        found = check_columns(asset, relations.columns_of(asset), self.index.product.columns)
        self.columns.findings += found
        for finding in found:
            self.context.log.warning(f"{finding.asset}: {finding.message}")
        strict = [finding.message for finding in found if finding.level == STRICT]
        if strict:
            self.refused[key] = "; ".join(strict)
        return bool(strict)

    def _checked(self) -> dict[str, list[Checked]]:
        """Return the results of the tests that ran, by unique id of their asset; of one that ran before, not again."""
        found: dict[str, list[Checked]] = {}
        checks = self.index.checks_by_id()
        for key, result in self.outcome.tests.items():
            if key not in self.reported and result["status"] != SKIPPED:
                self.reported.add(key)
                found.setdefault(checks[key].asset, []).append(Checked(key, result))
        return found

    def _built(self, relations: BuiltRelations, key: str, published: PublicationResult | None) -> Built:
        asset, dbt_result = self.assets[key], self.outcome.built[key]
        description = self._describe(relations, asset, dbt_result)
        if published is None:
            return Built(key, dbt_result, description)
        relations.published(asset, published)
        changed = (
            ""
            if published.mode == "overwrite"
            else f" ({published.mode}: {published.inserted:,} new or changed)"
        )
        self.progress.line(
            f"published {published.table}: {published.rows:,} rows{changed}, snapshot {published.snapshot_id}, "
            f"{published.seconds:.2f} s"
        )
        return Published(key, dbt_result, description, published)

    def _publish(self, publisher: Publisher, asset: Asset) -> PublicationResult:
        try:
            with self.context.observer.publishing(asset) as seen:
                result = publisher.publish(self._request(asset))
                seen.append(result)
        except (PublicationError, CatalogError):
            raise
        except Exception as error:
            if self._concerns_all(error):
                raise
            # What is wrong with one table must not take the others along.
            raise self._refusal(asset.name, error) from presentable(error)
        return result

    def _refusal(self, name: str, error: Exception) -> PublicationError:
        """Return why one table is not published, where an engine or a library raised something."""
        if presentable(error) is not None:
            self.context.log.debug("".join(traceback.format_exception(error)))
        said = self.workspace.said(error)
        if said is None and is_fault(error):
            return PublicationError(fault_message(error, f"{self.slug}.{name} could not be published"))
        return PublicationError(
            f"{name} cannot be published: {said or error}", transient=self.workspace.is_transient(str(error))
        )

    def _concerns_all(self, error: Exception) -> bool:
        """Tell whether an error is the engine's or the catalog's, not one table's."""
        return self.workspace.failure(error) is not None or is_remote_failure(error)

    def _describe(
        self, relations: BuiltRelations, asset: Asset, result: Mapping[str, Any]
    ) -> RelationDescription | None:
        """Describe a relation; what cannot be described is published all the same."""
        try:
            return relations.describe(asset, result)
        except Exception as error:
            if self._concerns_all(error):
                raise
            self.context.log.warning(str(self._refusal(asset.name, error)))
            return None

    def _request(self, asset: Asset) -> PublicationRequest:
        properties = {**self.properties, **batch_properties(self.outcome.built[asset.id])}
        return publication_request(asset, self.index.product, properties)
