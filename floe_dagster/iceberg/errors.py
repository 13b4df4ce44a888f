"""What can go wrong with a table, in words for its owner."""

from __future__ import annotations

from floe_dagster.connections import connection_reason
from floe_dagster.errors import FloeError


class PublicationError(FloeError):
    """A relation cannot be published as it is; the table stays at its last good snapshot.

    It names the table, the column where there is one, and what to do.

    Args:
        message: All of that.
        transient: Whether trying again may help; mostly it does not.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class CatalogError(FloeError):
    """The catalog or its storage does not answer or is not usable. Trying again may help."""


class NotUsableError(CatalogError):
    """Catalog or storage answer, and refuse: credentials, rights, names. Trying again does not help.

    Args:
        message: What is refused, and what to do.
        cause: credentials, rights, storage or server, where that is known: what has to be corrected.
    """

    def __init__(self, message: str, *, cause: str = "") -> None:
        super().__init__(message)
        self.cause = cause


_WRONG_KEYS = ("SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID")
_WHOSE_KEYS = (
    "access_key_id and secret_access_key of plugins.storage.config; or the catalog's own access to the storage, where it gives "
    "the keys (plugins.catalog.config.credential_vending)"
)


def catalog_error(error: Exception, what: str) -> Exception:
    """Return a library's error in words for people; anything unknown comes back as it is.

    Args:
        error: Of PyIceberg, requests, Arrow or SQLAlchemy.
        what: What was being done, for example `customer_360.orders could not be written`.
    """
    from pyiceberg import exceptions as iceberg
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, PublicationError | CatalogError):
        return error
    said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:600]
    if isinstance(error, iceberg.BadRequestError) and "redential vending" in said:
        return NotUsableError(
            f"{what}: the catalog has no storage credentials to give ({said}). Set "
            "plugins.catalog.config.credential_vending to false and name storage keys in plugins.storage.config",
            cause="storage",
        )
    if isinstance(error, NotImplementedError) and "does not support endpoint" in said:
        return NotUsableError(f"{what}: the catalog does not offer what this needs ({said})", cause="server")
    if isinstance(error, iceberg.UnauthorizedError | iceberg.OAuthError):
        return NotUsableError(
            f"{what}: the catalog does not accept the credentials of plugins.catalog ({said})",
            cause="credentials",
        )
    if isinstance(error, iceberg.ForbiddenError):
        return NotUsableError(
            f"{what}: the catalog forbids it ({said}). Grant the principal the right, or see `floe-dagster platform check`",
            cause="rights",
        )
    if isinstance(error, RequestException):
        return CatalogError(f"{what}: {_connection(error)}")
    if isinstance(error, OSError) and any(sign in said for sign in _WRONG_KEYS):
        return NotUsableError(
            f"{what}: the storage does not accept the keys ({said}). Check {_WHOSE_KEYS}", cause="storage"
        )
    if isinstance(error, OSError) and ("EXPIRED_TOKEN" in said or "ExpiredToken" in said):
        return CatalogError(
            f"{what}: the keys of the storage have run out ({said}); another try gets new ones"
        )
    if isinstance(error, OSError) and ("ACCESS_DENIED" in said or "AccessDenied" in said):
        return NotUsableError(
            f"{what}: the storage denies access ({said}). Check the bucket policy, and {_WHOSE_KEYS}",
            cause="storage",
        )
    if isinstance(error, OSError) and ("NO_SUCH_BUCKET" in said or "NoSuchBucket" in said):
        return NotUsableError(
            f"{what}: the bucket does not exist ({said}). Run `floe-dagster platform bootstrap`",
            cause="storage",
        )
    known = (OSError, SQLAlchemyError, iceberg.RESTError, iceberg.CommitStateUnknownException)
    if isinstance(error, known):
        return CatalogError(f"{what}: {said}")
    return error


def table_refused(error: Exception, full_name: str) -> PublicationError | None:
    """Return what a catalog's refusal of one table's change means for its owner; None where it refused nothing.

    A server may be stricter than Iceberg's format: it holds a column against the names of partition fields of long ago, or takes
    two time partitions of one column for one too many.

    Args:
        error: As it was raised.
        full_name: Of the table.
    """
    from pyiceberg import exceptions as iceberg

    if not isinstance(error, iceberg.BadRequestError) or "redential vending" in str(error):
        return None
    said = next((line for line in str(error).splitlines() if line.strip()), "it does not say why")[:600]
    return PublicationError(
        f"{full_name}: the catalog refuses this change of the table ({said}). Give the column that it names another name, change "
        "transforms[].table in floe.yaml, or drop the table to start over; its last snapshot stands."
    )


def is_remote_failure(error: Exception) -> bool:
    """Tell whether an error comes from the catalog or the way to it, and from nothing of ours."""
    from pyiceberg import exceptions as iceberg
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, iceberg.RESTError | RequestException | SQLAlchemyError)


def _connection(error: Exception) -> str:
    import re

    request = getattr(error, "request", None)
    url = re.sub(r"\?.*", "", str(getattr(request, "url", "") or ""))
    reason = connection_reason(error) or type(error).__name__
    return f"the catalog at {url or '(unknown address)'} does not answer: {reason}"
