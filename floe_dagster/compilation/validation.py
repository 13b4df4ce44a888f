"""Documents against their schemas: what pydantic says, in words for the person who wrote the YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_args

from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from floe_dagster.compilation.documents import Document, DocumentPath, dotted
from floe_dagster.compilation.suggestions import did_you_mean
from floe_dagster.findings import Finding
from floe_dagster.schemas.base import NotAllowedError
from floe_dagster.schemas.forms import in_words
from floe_dagster.schemas.late_models import models_in
from floe_dagster.schemas.manifest import PlatformManifest
from floe_dagster.schemas.product import ProductSpec
from floe_dagster.schemas.secrets import (
    REFERENCE_KEYS,
    is_reference,
    is_secret_key,
    without_credentials,
    without_url_credentials,
)

T = TypeVar("T", bound=BaseModel)


@dataclass(slots=True)
class Parsed(Generic[T]):
    """A document and what it says.

    Args:
        value: The typed document; None where it has errors.
        document: Where it was read.
        findings: Everything that is wrong or odd.
    """

    value: T | None
    document: Document
    findings: list[Finding] = field(default_factory=list)


def parse_manifest(document: Document) -> Parsed[PlatformManifest]:
    """Validate a platform manifest. Unknown keys at its top are warnings."""
    parsed = _parse(document, PlatformManifest)
    known = set(_keys_of(PlatformManifest))
    for key in document.data:
        if key not in known:
            line, column = document.position((key,), key=True)
            parsed.findings.append(
                Finding(
                    code="unknown-field",
                    severity="warning",
                    message=f"unknown field {key!r} is kept but has no effect",
                    file=document.display,
                    line=line,
                    column=column,
                    field=key,
                    fix=did_you_mean(key, known) or "Remove it, or upgrade floe-dagster.",
                )
            )
    return parsed


def parse_product(document: Document) -> Parsed[ProductSpec]:
    """Validate a product spec. Unknown keys are errors."""
    return _parse(document, ProductSpec)


def _parse(document: Document, model: type[T]) -> Parsed[T]:
    findings: list[Finding] = []
    data = _without_secrets(document.data, (), document, findings)
    data = {key: value for key, value in data.items() if value is not None}
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        findings += [
            _finding(item, document, model) for item in error.errors(include_url=False, include_context=True)
        ]
        return Parsed(None, document, findings)
    return Parsed(value, document, findings)


def _without_secrets(value: Any, path: DocumentPath, document: Document, findings: list[Finding]) -> Any:
    """Return the data with literal secrets replaced by a reference that names nothing."""
    if isinstance(value, dict):
        if {"env"} <= set(value) <= {"env", "secret", "key"} or set(value) == {"secret", "key"}:
            # The keys of a reference hold names, the one called `secret` as well.
            return value
        return {key: _checked(key, item, path, document, findings) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item, (*path, n), document, findings) for n, item in enumerate(value)]
    if isinstance(value, str) and (public := without_url_credentials(value)) != value:
        _literal(
            document,
            path,
            findings,
            "Take user, password and key out of the URL, and refer to them in a field of their own.",
        )
        return public
    return value


def _checked(key: str, item: Any, path: DocumentPath, document: Document, findings: list[Finding]) -> Any:
    # What a header of the collector is called tells nothing: all of them are for authentication.
    if (is_secret_key(key) or path[-2:] == ("tracing", "headers")) and item is not None:
        if is_reference(item):
            return item
        if isinstance(item, dict) and (wrong := _mistyped(item)):
            return _no_reference(document, (*path, key), wrong, findings)
        return _literal(document, (*path, key), findings)
    return _without_secrets(item, (*path, key), document, findings)


def _mistyped(item: dict[Any, Any]) -> list[str]:
    """Return the keys that a reference does not have, of what is meant to be one: the others, or what they resemble, it has."""
    wrong = [str(key) for key in item if key not in REFERENCE_KEYS]
    is_meant = len(wrong) < len(item) or all(did_you_mean(key.lower(), REFERENCE_KEYS) for key in wrong)
    return wrong if is_meant else []


def _no_reference(
    document: Document, path: DocumentPath, wrong: list[str], findings: list[Finding]
) -> dict[str, str]:
    for key in wrong:
        line, column = document.position((*path, key), key=True)
        findings.append(
            Finding(
                code="unknown-field",
                severity="error",
                message=f"unknown field {key!r}",
                file=document.display,
                line=line,
                column=column,
                field=dotted((*path, key)),
                allowed=", ".join(REFERENCE_KEYS),
                fix=did_you_mean(key.lower(), REFERENCE_KEYS)
                or "Remove it: a reference to a secret has no such key.",
            )
        )
    return {"env": _variable(path)}


def _literal(
    document: Document, path: DocumentPath, findings: list[Finding], advice: str | None = None
) -> dict[str, str]:
    line, column = document.position(path)
    name = _variable(path)
    findings.append(
        Finding(
            code="literal-secret",
            severity="warning",
            message=f"{path[-1]} holds a secret itself",
            file=document.display,
            line=line,
            column=column,
            field=dotted(path),
            allowed="a reference such as {env: NAME}",
            fix=f"{advice or f'Write {{env: {name}}}, set {name} where it runs.'} Replace the secret: it has been seen.",
        )
    )
    # What is advised is what counts: a run asks for that variable by the name that the finding gives.
    return {"env": name}


def _variable(path: DocumentPath) -> str:
    """Return a name for the environment variable that a secret should be in."""
    named = [part for part in path if isinstance(part, str)][-1:] or ["SECRET"]
    return re.sub(r"[^A-Z0-9]+", "_", named[0].upper()).strip("_") or "SECRET"


def _finding(item: Any, document: Document, model: type[BaseModel]) -> Finding:
    path = _document_path(item["loc"], document)
    kind, context = item["type"], item.get("ctx") or {}
    if kind == "union_tag_invalid":
        path, item = (*path, "type"), {**item, "input": context.get("tag")}
    refused = context.get("error")
    if isinstance(refused, NotAllowedError) and refused.at:
        path = (*path, *refused.at)
        item = {**item, "input": _value_at(path, document)}
    absent = kind in ("missing", "union_tag_not_found")
    line, column = document.position(path, key=kind == "extra_forbidden")
    found = None if absent or kind == "extra_forbidden" else _shown(item.get("input"))
    message, allowed, fix, code = _words(item, kind, context, path)
    if kind == "extra_forbidden":
        known = _known_keys(model, path[:-1], document)
        fix = did_you_mean(str(path[-1]), known) or "Remove it."
        allowed = ", ".join(sorted(known)) or None
        if _is_the_platforms(path, model):
            message = f"{path[-1]} is the platform's to state, and no product's"
            fix = f"Remove it, and ask the platform's owner to state governance.{path[-1]} in the manifest."
    return Finding(
        code=code,
        severity="error",
        message=message,
        file=document.display,
        line=line,
        column=column,
        field=dotted(path) or None,
        found=found,
        allowed=allowed,
        fix=fix,
    )


def _is_the_platforms(path: DocumentPath, model: type[BaseModel]) -> bool:
    """Tell whether an unknown field is one that manifests have in the same place and products have not."""
    from floe_dagster.schemas.governed import with_settings
    from floe_dagster.schemas.manifest import ManifestGovernance

    is_governance = model is ProductSpec and len(path) == 2 and path[0] == "governance"
    return is_governance and path[1] in with_settings(ManifestGovernance).model_fields


def _words(
    item: Any, kind: str, context: dict[str, Any], path: DocumentPath
) -> tuple[str, str | None, str | None, str]:
    name = str(path[-1]) if path else "the document"
    if kind == "missing":
        return f"{name} is missing", None, f"Add `{name}:`.", "missing-field"
    if kind == "union_tag_not_found":
        return f"{name} has no type", None, "Add `type:`.", "missing-field"
    if kind == "extra_forbidden":
        return f"unknown field {name!r}", None, None, "unknown-field"
    if kind in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags") or "")
        choices = re.findall(r"'([^']*)'", expected)
        near = did_you_mean(str(item.get("input")), choices)
        return f"{name} has a value that is not allowed", ", ".join(choices), near, "value-not-allowed"
    if isinstance(error := context.get("error"), NotAllowedError):
        return f"{name} {error}", error.allowed, error.fix, "invalid-value"
    if kind == "value_error":
        return f"{name} {context.get('error') or item['msg']!s}", None, None, "invalid-value"
    bounds = {
        "greater_than_equal": ("ge", "at least"),
        "less_than_equal": ("le", "at most"),
        "greater_than": ("gt", "more than"),
        "less_than": ("lt", "less than"),
    }
    if kind in bounds:
        key, words = bounds[kind]
        return f"{name} is out of bounds", f"{words} {context[key]}", None, "out-of-bounds"
    if kind == "string_pattern_mismatch":
        return f"{name} has the wrong form", in_words(context["pattern"]), None, "invalid-value"
    expected_type = {
        "string_type": "text",
        "int_type": "a whole number",
        "float_type": "a number",
        "bool_type": "true or false",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "model_attributes_type": "a mapping",
    }.get(kind)
    if expected_type:
        return f"{name} has the wrong type", expected_type, None, "wrong-type"
    return f"{name}: {item['msg'].lower()}", None, None, "invalid-value"


def _document_path(location: Iterable[str | int], document: Document) -> DocumentPath:
    """Drop the parts of pydantic's location that name a branch of a union, not a place in the document."""
    path: list[str | int] = []
    data = document.data
    parts = list(location)
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if isinstance(data, dict) and part not in data and not last:
            continue
        if isinstance(data, list) and not isinstance(part, int):
            continue
        if not isinstance(data, dict | list):
            continue
        path.append(part)
        try:
            data = data[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            data = None
    return tuple(path)


def _value_at(path: DocumentPath, document: Document) -> Any:
    data = document.data
    for part in path:
        data = data[part]
    return data


def _shown(value: Any) -> str | None:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = "nothing" if value is None else repr(value) if isinstance(value, str) else str(value).lower()
    text = without_credentials(text)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _keys_of(model: type[BaseModel]) -> list[str]:
    keys = []
    for name, info in model.model_fields.items():
        keys.append(name)
        alias = info.validation_alias
        if isinstance(alias, AliasChoices):
            keys += [str(choice) for choice in alias.choices]
    return keys


def _known_keys(model: type[BaseModel], path: DocumentPath, document: Document) -> set[str]:
    models: list[type[BaseModel]] = [model]
    data = document.data
    for part in path:
        data = data[part] if isinstance(data, dict | list) else None  # type: ignore[index]
        if isinstance(part, int):
            continue
        models = [inner for outer in models for inner in _models_in(_field_of(outer, part))]
        typed = [inner for inner in models if _has_type(inner, data)]
        models = typed or models
    names: set[str] = set()
    for found in models:
        for name, info in found.model_fields.items():
            alias = info.validation_alias
            names.add(str(alias.choices[0]) if isinstance(alias, AliasChoices) else name)
    return names


def _has_type(model: type[BaseModel], data: Any) -> bool:
    info = model.model_fields.get("type")
    return info is not None and isinstance(data, dict) and data.get("type") in get_args(info.annotation)


def _field_of(model: type[BaseModel], key: str) -> FieldInfo | None:
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        if name == key or (isinstance(alias, AliasChoices) and key in alias.choices):
            return info
    return None


def _models_in(info: FieldInfo | None) -> list[type[BaseModel]]:
    return [] if info is None else list(models_in(info.annotation))
