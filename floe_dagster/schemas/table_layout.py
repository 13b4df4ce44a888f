"""The small languages of `transforms[].table`: partition fields and sort fields."""

from __future__ import annotations

import re
from dataclasses import dataclass

TRANSFORMS = ("identity", "year", "month", "day", "hour", "bucket", "truncate")
_COLUMN = r'(?:[^\W\d]\w*|"(?:[^"]|"")+")'
_PARTITION = re.compile(rf"^(?:(\w+)\s*\(\s*(?:(\d+)\s*,\s*)?({_COLUMN})\s*\)|({_COLUMN}))$")
_SORT = re.compile(rf"^({_COLUMN})(?:\s+(asc|desc))?(?:\s+nulls\s+(first|last))?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PartitionField:
    """One partition field: `day(at)`, `bucket(16, id)`, `truncate(4, code)`, or a column.

    Args:
        column: Name of the column.
        transform: One of `TRANSFORMS`.
        width: Buckets, or characters; only with bucket and truncate.
    """

    column: str
    transform: str = "identity"
    width: int | None = None

    @classmethod
    def parse(cls, text: str) -> PartitionField:
        """Read one field.

        Raises:
            ValueError: It is none; the message says what is allowed.
        """
        found = _PARTITION.match(text.strip())
        if not found:
            raise ValueError(
                f"{text!r} is no partition field; write a column, or one of year, month, day, hour (column), "
                "bucket(16, column), truncate(4, column)"
            )
        transform, width, inner, plain = found.groups()
        if plain:
            return cls(_unquoted(plain))
        if transform not in TRANSFORMS:
            raise ValueError(f"{transform!r} is no partition transform; there are: {', '.join(TRANSFORMS)}")
        takes_width = transform in ("bucket", "truncate")
        if takes_width != (width is not None) or width == "0":
            example = f"{transform}(16, {inner})" if takes_width else f"{transform}({inner})"
            raise ValueError(f"{text!r} must look like {example}")
        return cls(_unquoted(inner), transform, int(width) if width else None)

    @property
    def name(self) -> str:
        """Name of the field in Iceberg's partition spec, as Spark and PyIceberg name it."""
        suffix = {"identity": "", "truncate": "_trunc"}.get(self.transform, f"_{self.transform}")
        return self.column + suffix


@dataclass(frozen=True, slots=True)
class SortField:
    """One sort field: `at desc nulls last`.

    Args:
        column: Name of the column.
        descending: Largest first.
        nulls_first: Whether nulls come first; Iceberg's default is first when ascending.
    """

    column: str
    descending: bool = False
    nulls_first: bool = True

    @classmethod
    def parse(cls, text: str) -> SortField:
        """Read one field.

        Raises:
            ValueError: It is none.
        """
        found = _SORT.match(text.strip())
        if not found:
            raise ValueError(
                f"{text!r} is no sort field; write a column, then asc or desc, then nulls first or last"
            )
        column, direction, nulls = found.groups()
        descending = (direction or "asc").lower() == "desc"
        return cls(_unquoted(column), descending, nulls.lower() == "first" if nulls else not descending)


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text
