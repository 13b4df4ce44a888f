"""Files of a table whose keys the catalog gives.

A catalog names keys for one table in `config`, or in `storage-credentials`, each for a prefix of locations; of those the
longest prefix counts, and they come before `config` (the Iceberg REST protocol, LoadTableResult). PyIceberg looks the
prefix up once, by the place of the table's metadata file, which a table that is not committed yet does not have, and which
says nothing of a table whose data lies elsewhere. Here each file is opened with the keys of its own prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

from pyiceberg.io import InputFile, OutputFile
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

if TYPE_CHECKING:
    from pyiceberg.catalog.rest.scan_planning import StorageCredential

_KEYS = frozenset(
    f"{prefix}.{name}"
    for prefix in ("s3", "client")
    for name in ("access-key-id", "secret-access-key", "session-token")
)
"""One identity at the store; PyIceberg knows both prefixes and takes `s3` first."""


def layered(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a FileIO from several layers, each of which overrules those before it.

    Keys are one identity: a layer that names an access key gets none of the parts that an earlier one had, such as
    its session token. A server speaks of regions and of addresses by path in the words of Iceberg's Java client, which
    here would lose against PyIceberg's own words in an earlier layer.

    Args:
        layers: Properties of the catalog, of the table, of what the server says, in this order.
    """
    return reduce(_over, layers, {})


def _over(below: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    dropped = set(_KEYS) if _KEYS & given.keys() else set()
    own = dict(given)
    if "client.region" in given:
        own.setdefault("s3.region", given["client.region"])
    if "s3.path-style-access" in given:
        by_path = str(given["s3.path-style-access"]).strip().lower() == "true"
        own.setdefault("s3.force-virtual-addressing", str(not by_path).lower())
    return {name: value for name, value in below.items() if name not in dropped} | own


def longest_prefix(credentials: Sequence[StorageCredential], location: str) -> StorageCredential | None:
    """Return the credential whose prefix fits a location best; None where none fits.

    Args:
        credentials: Of the server's answer.
        location: Of a file or of a table.
    """
    fitting = [credential for credential in credentials if location.startswith(credential.prefix)]
    return max(fitting, key=lambda credential: len(credential.prefix), default=None)


class VendedFileIO(PyArrowFileIO):
    """Opens each file with the keys of the longest prefix that its location begins with.

    By itself it is the FileIO of the table's own location.

    Args:
        location: Of the table.
        credentials: Of the server's answer.
        properties: Makes the properties of a FileIO with the keys of one credential, or without such keys for None.
    """

    def __init__(
        self,
        location: str,
        credentials: Sequence[StorageCredential],
        properties: Callable[[StorageCredential | None], dict[str, Any]],
    ) -> None:
        self._credentials = credentials
        self._own = longest_prefix(credentials, folder(location))
        super().__init__(properties(self._own))
        self._others = {
            id(other): PyArrowFileIO(properties(other))
            for other in (*credentials, None)
            if other is not self._own
        }

    def at(self, location: str) -> PyArrowFileIO:
        """Return the FileIO whose keys are those of a location.

        Args:
            location: Of a file; of a folder with a slash at its end.
        """
        found = longest_prefix(self._credentials, location)
        return self if found is self._own else self._others[id(found)]

    def new_input(self, location: str) -> PyArrowFile:
        """Return a file to read, with the keys of its prefix."""
        io = self.at(location)
        return super().new_input(location) if io is self else io.new_input(location)

    def new_output(self, location: str) -> PyArrowFile:
        """Return a file to write, with the keys of its prefix."""
        io = self.at(location)
        return super().new_output(location) if io is self else io.new_output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Remove a file, with the keys of its prefix.

        Raises:
            OSError: It is not there, or cannot be removed.
        """
        text = location.location if isinstance(location, InputFile | OutputFile) else location
        io = self.at(text)
        if io is self:
            super().delete(text)
        else:
            io.delete(text)


def file_io_at(io: PyArrowFileIO, location: str) -> PyArrowFileIO:
    """Return the FileIO whose keys are those of a folder of a table: `io` itself where it knows one set of keys.

    Args:
        io: Of the table.
        location: Of the folder.
    """
    return io.at(folder(location)) if isinstance(io, VendedFileIO) else io


def folder(location: str) -> str:
    """Return the location of a folder as prefixes may spell it: with a slash at its end."""
    return f"{location.rstrip('/')}/"
