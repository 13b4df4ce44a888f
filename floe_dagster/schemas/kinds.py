"""Kinds that others can add: engines, catalog types and policies, of this package and of installed distributions.

A distribution brings one by an entry point, under the kind's own name. Entry points are read once, when a kind is asked for
first; never while this package is imported, since what they name imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from threading import RLock
from typing import Annotated, Any, Generic, Protocol, TypeVar, Union, get_args

from pydantic import BaseModel, Field

from floe_dagster.findings import Finding
from floe_dagster.schemas.late_models import LateModels

ENGINES_GROUP, CATALOGS_GROUP, POLICIES_GROUP = (
    f"floe_dagster.{kinds}" for kinds in ("engines", "catalogs", "policies")
)
GROUPS = (ENGINES_GROUP, CATALOGS_GROUP, POLICIES_GROUP)


class Named(Protocol):
    """What has a name of its own."""

    @property
    def name(self) -> str:
        """The name, as documents say it."""
        ...


class Plugin(Named, Protocol):
    """A kind whose settings are a section of `plugins`."""

    @property
    def plugin(self) -> type[BaseModel]:
        """Model of the section; its `type` is the name."""
        ...


T = TypeVar("T", bound=Named)


class Kinds(Mapping[str, T], Generic[T]):
    """Kinds of one sort by their name: this package's own, then those of installed distributions, by distribution.

    What a distribution brings and cannot be used is left out, and is a finding: no document is compiled then.

    Args:
        group: Of the entry points.
        sort: Class of the kinds; an entry point names an instance of it, or a subclass that needs no arguments.
        own: This package's.
        problem: Returns why a kind cannot stand beside the others, None where it can.
    """

    def __init__(
        self,
        group: str,
        sort: type[T],
        own: Sequence[T],
        problem: Callable[[T, Mapping[str, T]], str | None] = lambda kind, others: None,
    ) -> None:
        self._group, self._sort, self._problem = group, sort, problem
        self._known: dict[str, T] = {kind.name: kind for kind in own}
        self._lock = RLock()
        self._is_loaded = False
        self._findings: list[Finding] = []
        _REGISTRIES.append(self)

    @property
    def findings(self) -> Sequence[Finding]:
        """What distributions bring and cannot be used."""
        self._load()
        return self._findings

    def __getitem__(self, name: str) -> T:
        self._load()
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(self._known)

    def __len__(self) -> int:
        self._load()
        return len(self._known)

    def _load(self) -> None:
        with self._lock:
            if self._is_loaded:
                return
            # Before the first one: what is loaded may itself look at the kinds, and sees those that there are by then.
            self._is_loaded = True
            origins = dict.fromkeys(self._known, "floe-dagster itself")
            for entry in _entry_points(self._group):
                origin = _origin(entry)
                try:
                    kind = self._made(entry, origins)
                except Exception as error:  # whatever somebody else's code raises
                    self._findings.append(_finding(self._group, entry, origin, error))
                else:
                    self._known[kind.name], origins[kind.name] = kind, origin

    def _made(self, entry: metadata.EntryPoint, origins: Mapping[str, str]) -> T:
        if entry.name in origins:
            raise ValueError(f"{origins[entry.name]} brings one of that name")
        loaded = entry.load()
        kind = loaded() if isinstance(loaded, type) else loaded
        if not isinstance(kind, self._sort):
            raise TypeError(f"{entry.value} is no {self._sort.__module__}.{self._sort.__name__}")
        if kind.name != entry.name:
            raise ValueError(f"{entry.value} calls itself {kind.name!r}, its entry point {entry.name!r}")
        problem = self._problem(kind, self._known)
        if problem is not None:
            raise ValueError(problem)
        return kind


_REGISTRIES: list[Kinds[Any]] = []


def plugin_problem(kind: Plugin, _others: Mapping[str, Any]) -> str | None:
    """Return why the model of a kind cannot stand in `plugins`; None where it can.

    Args:
        kind: An engine or a catalog type.
    """
    field = kind.plugin.model_fields.get("type")
    if field is None or get_args(field.annotation) != (kind.name,):
        return f"the field `type` of {kind.plugin.__name__} is no Literal[{kind.name!r}]"
    if "config" not in kind.plugin.model_fields:
        return f"{kind.plugin.__name__} has no field `config`"
    return None


class OneOf(LateModels):
    """Marks a field of `plugins` that takes the model of one of the kinds, told apart by `type`.

    Args:
        kinds: That there are.
    """

    def __init__(self, kinds: Mapping[str, Plugin]) -> None:
        self._kinds = kinds

    def annotation(self, source: Any) -> Any:
        """Return the union of the models."""
        models = tuple(kind.plugin for kind in self._kinds.values())
        return Annotated[Union[models], Field(discriminator="type")]  # noqa: UP007


def extension_findings() -> list[Finding]:
    """Return what installed distributions bring and cannot be used."""
    return [finding for registry in _REGISTRIES for finding in registry.findings]


def extension_versions() -> list[str]:
    """Return `name=version` of each installed distribution that brings a kind: what is compiled depends on them."""
    return sorted({_origin(entry).replace(" ", "=") for group in GROUPS for entry in _entry_points(group)})


@cache
def _entry_points(group: str) -> list[metadata.EntryPoint]:
    return sorted(metadata.entry_points(group=group), key=lambda entry: (_origin(entry), entry.name))


def _origin(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "somebody"


def _finding(group: str, entry: metadata.EntryPoint, origin: str, error: Exception) -> Finding:
    reason = str(error) if type(error) in (TypeError, ValueError) else f"{type(error).__name__}: {error}"
    return Finding(
        code="unusable-extension",
        severity="error",
        message=f"{origin} brings {entry.name!r} as one of {group}, which cannot be used: {reason}",
        found=f"{entry.name} = {entry.value}",
        fix=f"Install another version of {origin.partition(' ')[0]}, or none.",
    )
