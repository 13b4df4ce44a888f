"""What can go wrong with a table, in words for its owner."""

from __future__ import annotations


class PublicationError(Exception):
    """A relation cannot be published as it is; the table stays at its last good snapshot.

    It names the table, the column where there is one, and what to do. Trying again does not help.
    """


class CatalogError(Exception):
    """The catalog or its storage does not answer or is not usable. Trying again may help."""
