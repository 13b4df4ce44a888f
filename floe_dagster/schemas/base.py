"""What the models of all documents share."""

from __future__ import annotations

import keyword
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from floe_dagster.errors import FloeError
from floe_dagster.schemas.forms import form

NAME_PATTERN = r"^[a-z][a-z0-9-]{0,61}[a-z0-9]$"
RESERVED_SLUGS = frozenset({"platform", "floe"})
SEMVER_PATTERN = (
    r"^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?$"
)


def to_camel(name: str) -> str:
    """Return `dependsOn` for `depends_on`."""
    first, *rest = name.split("_")
    return first + "".join(part.title() for part in rest)


EnforcementLevel = Literal["off", "warn", "strict"]
Seconds = Annotated[float, Field(gt=0, le=3600, strict=False)]
"""How long something may take, an hour at most."""


class NotAllowedError(FloeError, ValueError):
    """A value that a rule of its own forbids, in the parts that a finding has.

    Args:
        message: What is wrong; stands after the field's name.
        allowed: What could stand there.
        fix: What to do.
        at: Path below the field that the rule belongs to, where only a part of it is wrong.
    """

    def __init__(self, message: str, *, allowed: str, fix: str, at: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed
        self.fix = fix
        self.at = at


class Section(BaseModel):
    """A typed section: an unknown key is an error; camelCase and snake_case keys are both read."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        populate_by_name=True,
        alias_generator=None,
        validate_default=False,
        defer_build=True,
    )


def slug_of(name: str) -> str:
    """Return the slug of a product's or manifest's name: `customer_360` for `customer-360`."""
    return name.replace("-", "_")


def _check_name(name: str) -> str:
    if not re.match(NAME_PATTERN, name):
        raise ValueError(
            "must be 2 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending "
            "with a hyphen"
        )
    slug = slug_of(name)
    if slug in RESERVED_SLUGS:
        raise ValueError(f"{name!r} is reserved; choose another name")
    if keyword.iskeyword(slug):
        raise ValueError(f"{name!r} is a Python keyword and cannot be a code location; choose another name")
    return name


def _check_semver(version: str) -> str:
    if not re.match(SEMVER_PATTERN, version):
        raise ValueError("must be a semantic version such as 1.0.0")
    return version


def _check_regex(pattern: str) -> str:
    # The library takes time to import, and few documents have a pattern.
    from floe_dagster.schemas.patterns import compiled

    compiled(pattern)
    return pattern


Name = Annotated[str, AfterValidator(_check_name)]
SemVer = Annotated[str, AfterValidator(_check_semver)]
Regex = Annotated[str, AfterValidator(_check_regex)]
Days = Annotated[int, Field(ge=1, le=36_500)]
Hours = Annotated[int, Field(ge=1, le=36_500)]
Percent = Annotated[float, Field(ge=0, le=100, strict=False)]

_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_ENV_OF_DBT_FOR_PROJECTS = re.compile(r"^DBT_ENV_(SECRET|CUSTOM_ENV)_(?!FLOE_)")
_ENV_STRING = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$")


def _check_environment_name(name: str) -> str:
    if not _ENV_NAME.match(name):
        raise NotAllowedError(
            "is no name of an environment variable",
            allowed="letters, digits and _, not beginning with a digit",
            fix="Write the name alone, without ${}.",
        )
    if name.startswith(("DBT_", "FLOE_")) and not _ENV_OF_DBT_FOR_PROJECTS.match(name):
        raise NotAllowedError(
            "decides how dbt or floe-dagster works, which is not the product's",
            allowed="names that begin with neither DBT_ nor FLOE_, and DBT_ENV_SECRET_… and DBT_ENV_CUSTOM_ENV_…",
            fix="Give the variable another name.",
        )
    return name


EnvironmentName = Annotated[str, AfterValidator(_check_environment_name)]
"""Name of an environment variable that a dbt project may read."""


class SecretReference(Section):
    """Names where a secret comes from at run time: `{env: NAME}`, the string `${NAME}`, or `{secret: NAME, key: KEY}`.

    A Kubernetes Secret reaches a process as an environment variable, too: `FLOE_SECRET_<NAME>_<KEY>` where `env` names
    none; runs in Kubernetes get it from the Secret by themselves.
    """

    env: str | None = Field(None, description="Name of the environment variable that holds the secret.")
    secret: str | None = Field(
        None,
        pattern=form(
            r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
            "lower-case letters, digits, hyphens and dots, such as warehouse-keys",
        ),
        description="Name of the Kubernetes Secret.",
    )
    key: str | None = Field(
        None,
        pattern=form(
            r"^[-._a-zA-Z0-9]+$", "letters, digits, hyphens, underscores and dots, such as secret-key"
        ),
        description="Key in the Kubernetes Secret.",
    )

    @classmethod
    def parse(cls, value: Any) -> Any:
        """Turn the string form into the mapping form; anything else is left for validation."""
        if isinstance(value, str):
            found = _ENV_STRING.match(value)
            if not found:
                raise ValueError("must be a reference such as {env: NAME}, never the secret itself")
            return {"env": found.group(1)}
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("env"), str) and not _ENV_NAME.match(value["env"]):
            raise ValueError("env must be the name of an environment variable")
        if ("secret" in value) != ("key" in value):
            raise ValueError("a Kubernetes Secret takes both: {secret: NAME, key: KEY}")
        if not value.get("env") and not value.get("secret"):
            raise ValueError(
                "must name where the secret comes from: {env: NAME}, or {secret: NAME, key: KEY}"
            )
        if not value.get("env") and isinstance(value["secret"], str) and isinstance(value["key"], str):
            name = re.sub(r"[^A-Za-z0-9]+", "_", f"FLOE_SECRET_{value['secret']}_{value['key']}").upper()
            return {**value, "env": name}
        return value
