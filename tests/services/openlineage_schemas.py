"""Holds OpenLineage events to the published JSON Schemas: the event, and every facet to the schema of its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

FOLDER = "openlineage"
CORE = "OpenLineage.json"
HOST = "https://openlineage.io/spec/"
PLACES = {
    "RunFacet": "run.facets",
    "JobFacet": "job.facets",
    "DatasetFacet": "facets",
    "InputDatasetFacet": "inputFacets",
    "OutputDatasetFacet": "outputFacets",
}
"""Where a facet goes, by the definition that it extends."""
VERSION = re.compile(
    r"(?P<before>.*/)(?P<version>\d+-\d+-\d+)/(?P<file>[^/#]+)(?:#/\$defs/(?P<definition>.+))?"
)
URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9\-._~:/?@!$&'()*+,;=\[\]]|%[0-9A-Fa-f]{2})+(?:#[^#\s<>\"\\^`{|}]*)?"
)


@dataclass(frozen=True)
class FacetSchema:
    """The schema of a facet.

    Args:
        place: The definition that it extends: a key of `PLACES`.
        key: The facet's name in an event.
        identifier: The `$id` of its file.
        definition: Its name under `$defs`.
    """

    place: str
    key: str
    identifier: str
    definition: str

    @property
    def url(self) -> str:
        """What `_schemaURL` of this very version says."""
        return f"{self.identifier}#/$defs/{self.definition}"


class OpenLineageSchemas:
    """Validates events without any network.

    Args:
        folder: With `OpenLineage.json`, `facets/` and `registry/`, as under `spec/` of github.com/OpenLineage/OpenLineage.
        vendor: Schemas of vendor facets, written like the official ones; what they describe is held to them.
        prefix: Of the names of vendor facets; any other name has to be an official one.

    Raises:
        FileNotFoundError: The folder does not hold the schemas.
    """

    def __init__(self, folder: Path, vendor: Iterable[Path] = (), prefix: str = "floe_") -> None:
        self.prefix = prefix
        facets = [*sorted(folder.glob("facets/*.json")), *sorted(folder.glob("registry/*/facets/*.json"))]
        if not (folder / CORE).is_file() or not facets:
            raise FileNotFoundError(_missing(str(folder)))
        documents = [json.loads(path.read_text()) for path in (folder / CORE, *facets, *vendor)]
        self.core: str = documents[0]["$id"]
        self._documents: dict[str, dict[str, Any]] = {document["$id"]: document for document in documents}
        resources = {
            url: DRAFT202012.create_resource(document)
            for identifier, document in self._documents.items()
            for url in (identifier, _without_version(identifier))
        }
        self._registry: Registry[Any] = Registry().with_resources(resources.items()).crawl()
        self._formats = _format_checker()
        self._facets: dict[str, list[FacetSchema]] = {}
        for identifier, document in self._documents.items():
            Draft202012Validator.check_schema(document)
            self._resolve_all(identifier, document)
            for facet in self._facets_in(identifier, document):
                self._facets.setdefault(facet.key, []).append(facet)

    @classmethod
    def from_environment(cls, vendor: Iterable[Path] = ()) -> Self:
        """Read the schemas from `$FLOE_SPECS/openlineage`.

        Raises:
            FileNotFoundError: They are not there.
        """
        named = os.environ.get("FLOE_SPECS", "")
        if not named:
            raise FileNotFoundError(_missing("FLOE_SPECS is not set"))
        return cls(Path(named) / FOLDER, vendor)

    def check(self, event: dict[str, Any]) -> None:
        """Validate an event.

        Raises:
            AssertionError: With all problems, and the event.
        """
        problems = self.validate(event)
        assert not problems, "\n".join([*problems, json.dumps(event, indent=2, default=str)])

    def validate(self, event: dict[str, Any]) -> list[str]:
        """Return what is wrong with a run event, each with the JSON path of the place."""
        problems = list(self._against(f"{self.core}#/$defs/RunEvent", event, "$"))
        problems += self._url_problems(event.get("schemaURL"), self.core, "RunEvent", "$.schemaURL")
        for place, facets, path in _facet_places(event):
            for key, facet in facets.items():
                problems += self._facet_problems(place, key, facet, f"{path}.{key}")
        # The event's schema finds what every facet lacks, and so does the facet's own.
        return list(dict.fromkeys(problems))

    def _facet_problems(self, place: str, key: str, facet: Any, path: str) -> Iterator[str]:
        known = self._facets.get(key, [])
        schema = next((schema for schema in known if schema.place == place), None)
        if schema:
            yield from self._against(schema.url, facet, path)
            if isinstance(facet, dict):
                url = facet.get("_schemaURL")
                yield from self._url_problems(url, schema.identifier, schema.definition, f"{path}._schemaURL")
        elif known:
            places = " or ".join(sorted({PLACES[schema.place] for schema in known}))
            yield f"{path}: this facet belongs into {places}"
        elif not key.startswith(self.prefix):
            yield f"{path}: no official facet has this name, and it does not start with {self.prefix}"
        else:
            yield from self._against(f"{self.core}#/$defs/{place}", facet, path)
            url = facet.get("_schemaURL") if isinstance(facet, dict) else None
            if isinstance(url, str) and url.startswith(HOST):
                yield from self._url_problems(url, self.core, place, f"{path}._schemaURL")

    def _against(self, url: str, value: Any, path: str) -> Iterator[str]:
        validator = Draft202012Validator({"$ref": url}, registry=self._registry, format_checker=self._formats)
        for error in validator.iter_errors(value):
            for leaf in _leaves(error):
                yield f"{path}{leaf.json_path.removeprefix('$')}: {leaf.message[:300]}"

    def _url_problems(self, url: Any, identifier: str, definition: str, path: str) -> Iterator[str]:
        """Look whether a schema's URL names the schema that counts, in a version that the file at hand covers."""
        if not isinstance(url, str):
            return  # the schema has said so
        wanted = VERSION.fullmatch(f"{identifier}#/$defs/{definition}")
        assert wanted, identifier
        named = VERSION.fullmatch(url)
        expected = f"{identifier}#/$defs/{definition}"
        if not named or any(named[part] != wanted[part] for part in ("before", "file", "definition")):
            yield f"{path}: {url} is not {expected}"
            return
        there, here = _numbers(named["version"]), _numbers(wanted["version"])
        # SchemaVer: another first number breaks; within it, a later version covers the earlier ones.
        if there[0] != here[0] or there > here:
            yield f"{path}: {url} is not covered by {expected}"

    def _facets_in(self, identifier: str, document: dict[str, Any]) -> Iterator[FacetSchema]:
        for key, schema in document.get("properties", {}).items():
            for definition in _alternatives(schema, document):
                place = _extended(document["$defs"][definition])
                if place:
                    yield FacetSchema(place, key, identifier, definition)

    def _resolve_all(self, identifier: str, document: dict[str, Any]) -> None:
        """Fail now for a reference that leads nowhere, not at the first event that needs it."""
        resolver = self._registry.resolver(identifier)
        for reference in _references(document):
            try:
                resolver.lookup(reference)
            except Unresolvable as error:
                raise FileNotFoundError(
                    f"{identifier} refers to {reference}: {_missing(str(error))}"
                ) from error


def _missing(found: str) -> str:
    return (
        f"FLOE_SPECS has to name a folder with {FOLDER}/: {CORE}, facets/*.json and registry/*/facets/*.json, as under "
        f"`spec/` of github.com/OpenLineage/OpenLineage ({found})"
    )


def _facet_places(event: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Return every group of facets in an event: what they extend, the facets, and their JSON path."""
    run, job = _member(event, "run"), _member(event, "job")
    yield "RunFacet", _member(run, "facets"), "$.run.facets"
    yield "JobFacet", _member(job, "facets"), "$.job.facets"
    parent = _member(_member(run, "facets"), "parent")
    for above, path in (
        (parent, "$.run.facets.parent"),
        (_member(parent, "root"), "$.run.facets.parent.root"),
    ):
        yield "RunFacet", _member(_member(above, "run"), "facets"), f"{path}.run.facets"
        yield "JobFacet", _member(_member(above, "job"), "facets"), f"{path}.job.facets"
    for part, own, place in (
        ("inputs", "inputFacets", "InputDatasetFacet"),
        ("outputs", "outputFacets", "OutputDatasetFacet"),
    ):
        datasets = event.get(part)
        for position, dataset in enumerate(datasets if isinstance(datasets, list) else ()):
            yield "DatasetFacet", _member(dataset, "facets"), f"$.{part}[{position}].facets"
            yield place, _member(dataset, own), f"$.{part}[{position}].{own}"


def _member(owner: Any, key: str) -> dict[str, Any]:
    found = owner.get(key) if isinstance(owner, dict) else None
    return found if isinstance(found, dict) else {}


def _alternatives(schema: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    """Return the definitions that a facet may have: one, or one a place."""
    for one in (schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        reference = one.get("$ref", "")
        if reference.startswith("#/$defs/"):
            definition = reference.removeprefix("#/$defs/")
            yield definition
            yield from _alternatives(
                {name: document["$defs"][definition].get(name, ()) for name in ("anyOf", "oneOf")}, document
            )


def _extended(definition: dict[str, Any]) -> str:
    for part in definition.get("allOf", ()):
        document, _, place = part.get("$ref", "").partition("#/$defs/")
        if document.endswith(CORE) and place in PLACES:
            return place
    return ""


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for value in schema.values():
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)


def _leaves(error: ValidationError) -> Iterator[ValidationError]:
    """Return what is really wrong, where the schema only says that no alternative fits."""
    if not error.context:
        yield error
        return
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context:
        branches.setdefault(inner.schema_path[0], []).append(inner)
    for inner in min(branches.values(), key=len):
        yield from _leaves(inner)


def _without_version(identifier: str) -> str:
    return re.sub(r"/\d+-\d+-\d+/", "/", identifier)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("-"))


def _format_checker() -> FormatChecker:
    checker = FormatChecker()
    # Without its library, jsonschema takes any text for a time.
    assert "date-time" in checker.checkers, "rfc3339-validator is not installed"

    @checker.checks("uri")
    def is_uri(value: object) -> bool:
        return not isinstance(value, str) or bool(URI.fullmatch(value))

    return checker
