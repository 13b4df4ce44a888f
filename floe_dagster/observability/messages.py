"""Error messages as they may leave: what went wrong, without the rows it went wrong on."""

from __future__ import annotations

import re

_QUOTES_VALUES = re.compile(
    r"\b(?:Conversion|Out of Range|Constraint|Invalid Input|Invalid Type|Mismatch Type|TransactionContext|Serialization|"
    r"INTERNAL|FATAL) Error:|Python model failed:?|(?=Could not convert|Could not (?:cast value|parse string)|[Dd]uplicate key)"
)
"""From here on a message may quote what is in the data: in quotes, without, over several lines."""
_BEGINNING = re.compile(
    r"\s*(?:"
    r"Could not (?:convert|parse|decode) string|Could not cast value|Could not (?:convert|cast|parse)"
    r"|Type [A-Z0-9_]+ with value|Casting value"
    r"|(?:invalid|Invalid) (?:date|time|timestamp) field format|(?:date|time|timestamp) field value out of range"
    r"|Duplicate key|Violates foreign key constraint because key|NOT NULL constraint failed: [\w.]+"
    r"|Failed to commit: PRIMARY KEY or UNIQUE constraint violation: duplicate key|duplicate key"
    r'|CHECK constraint failed on table "\w+"|Overflow in \w+ of [A-Z0-9]+|Date out of range|Value out of range'
    r"|Malformed JSON|JSON transform error|CSV Error on Line: \d+|extract specifier|Map keys must be unique"
    r"|More than one row returned by a subquery|Date and time not in timestamp range|Unimplemented type for cast"
    r"|Failure in decode|Python exception occurred while executing the UDF"
    r")"
)
_TYPE = (
    r"U?INT(?:8|16|32|64|128)|U?(?:TINYINT|SMALLINT|INTEGER|BIGINT|HUGEINT)|BOOL(?:EAN)?|FLOAT|DOUBLE"
    r"|DECIMAL\(\d+, ?\d+\)|DATE|TIMESTAMP(?:_S|_MS|_NS)?(?: WITH TIME ZONE)?|TIME|INTERVAL|UUID|BIT|BLOB|VARCHAR|JSON"
)
_ENDS = (
    re.compile(rf"(?: to |destination type )'?({_TYPE})(?!\w)"),
    re.compile(r"\b(violates (?:primary key|unique) constraint)"),
    re.compile(r"\b((?:does not exist|is still referenced) (?:in the referenced table|by a foreign key))"),
)
"""None of them can be a value: there are so many of them and no more."""
_COLUMN = re.compile(r" when casting from source column (\w+)\s*\Z")
_STATEMENT = re.compile(r"\n\s*LINE \d+: ")


def without_values(message: str) -> str:
    """Return a message of the engine without the values that it quotes.

    What stays is what is known to come from the engine; whatever else there is may be data.

    Args:
        message: Of DuckDB or dbt.
    """
    found = _QUOTES_VALUES.search(message)
    if found is None:
        return message
    said = message[found.end() :]
    beginning = _BEGINNING.match(said)
    rest = said[beginning.end() if beginning else 0 :]
    statements = list(_STATEMENT.finditer(rest))
    rest = rest[: statements[-1].start()] if statements else rest
    told = message[: found.end()] + (beginning.group() if beginning else "") + (" …" if rest.strip() else "")
    if beginning is None:
        return told
    for number, end in enumerate(_ENDS):
        if last := list(end.finditer(rest)):
            told += f" to {last[-1].group(1)}" if number == 0 else f" {last[-1].group(1)}"
            break
    column = _COLUMN.search(rest)
    return told + (column.group().rstrip() if column else "")
