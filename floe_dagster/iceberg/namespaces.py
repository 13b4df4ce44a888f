"""Namespaces of the catalog, made by whoever comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog


def make_namespace(catalog: Catalog, namespace: str) -> bool:
    """Make a namespace that is not there, and tell whether it was missing; others may make it at the same moment.

    Args:
        catalog: From `open_catalog`.
        namespace: Its name.
    """
    # Looked at first: who may write a namespace need not be allowed to make one.
    if catalog.namespace_exists(namespace):
        return False
    try:
        catalog.create_namespace_if_not_exists(namespace)
    except Exception:
        # A catalog on a database may answer the second of two with an error of that database.
        if not catalog.namespace_exists(namespace):
            raise
    return True
