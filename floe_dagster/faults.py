"""Exceptions that nobody expected: a fault of the program, which neither a right nor another try mends."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

ADVICE = (
    "This is a fault of floe-dagster or of a library that it uses, not of the platform: changing rights or settings does not "
    "help, and neither does trying again. Please report it, with this message and the versions of floe-dagster and of the library"
)
_PROGRAM = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What Python and its libraries raise for a mistake in a program: pydantic's errors of validation, Arrow's of types and
JSON's of syntax are among them."""
_DATABASE = ("ProgrammingError", "InternalError", "NotSupportedError")
"""The same in the words of Python's database API (PEP 249), which each driver has as classes of its own."""


def is_fault(error: BaseException) -> bool:
    """Tell whether an exception is a mistake in a program, and not the answer of a service, of a file or of the machine.

    Args:
        error: As it was raised; what was already put into words for people is none.
    """
    from requests import RequestException

    # Of an address that no request can have, and of an answer that is no JSON, requests makes a ValueError as well.
    if isinstance(error, OSError | RequestException | BrokenExecutor):
        return False
    if isinstance(error, _PROGRAM):
        return True
    return any(kind.__name__ in _DATABASE for kind in type(error).__mro__)


def fault_message(error: BaseException, what: str) -> str:
    """Return in one line that something unexpected was raised, what it is and where.

    Args:
        error: As it was raised.
        what: What was being done, for example `customer_360.orders could not be written`.
    """
    return f"{what}: {', caused by '.join(_described(found) for found in _causes(error))}{_place(error)}. {ADVICE}"


def fault_report(error: BaseException, what: str) -> str:
    """Return the same in several lines, what was raised first, and each cause in one of its own.

    Args:
        error: As it was raised.
        what: What was being done.
    """
    raised = "\ncaused by ".join(_described(found) for found in _causes(error))
    return f"{raised}\n{what}{_place(error)}. {ADVICE}"


def presentable(error: BaseException) -> BaseException | None:
    """Return an exception as the cause of another one that is shown and kept; None where its text may hold secrets.

    pydantic repeats in its messages what it was given, and that may be an answer with credentials.

    Args:
        error: As it was raised.
    """
    from pydantic import ValidationError

    found = _causes(error, with_context=True)
    return None if any(isinstance(one, ValidationError) for one in found) else error


def shown(error: BaseException) -> str:
    """Return what an exception says, as it may be shown: of pydantic's without the values.

    Args:
        error: As it was raised.
    """
    from pydantic import ValidationError

    return _without_values(error) if isinstance(error, ValidationError) else str(error)


def validation_problems(error: ValidationError) -> str:
    """Return what pydantic found, each with its field, and without the values.

    Args:
        error: Of pydantic.
    """
    found = error.errors(include_url=False, include_context=False, include_input=False)
    problems = [
        f"{'.'.join(str(part) for part in entry['loc']) or '(all of it)'}: {entry['msg']}" for entry in found
    ]
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def _described(error: BaseException) -> str:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return _without_values(error)
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said[:600]}" if said else type(error).__name__


def _without_values(error: ValidationError) -> str:
    return f"{type(error).__name__} of {error.title}: {validation_problems(error)}"


def _place(error: BaseException) -> str:
    """Return where it was raised: the last line of this package, since a library's own says less to who reports it."""
    package = Path(__file__).parent
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(package):
            return f" (floe_dagster/{path.relative_to(package).as_posix()}, line {frame.lineno})"
    return ""


def _causes(error: BaseException, *, with_context: bool = False) -> Iterator[BaseException]:
    """Yield an error and what it names as its cause; with their context what was being handled when it was raised, too."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        yield current
        seen.add(id(current))
        context = current.__context__ if with_context and not current.__suppress_context__ else None
        current = current.__cause__ or context
