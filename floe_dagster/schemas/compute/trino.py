"""Trino: a distributed engine that reads and writes the catalog's Iceberg tables itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from floe_dagster.schemas.addresses import Url, is_loopback
from floe_dagster.schemas.base import NotAllowedError, Section
from floe_dagster.schemas.compute.engine import (
    DataSource,
    Engine,
    ProfileText,
    audit_schema,
    check_profile_text,
)
from floe_dagster.schemas.compute.trino_project import project_overlay
from floe_dagster.schemas.forms import form
from floe_dagster.schemas.secrets import Secret

DEFAULT_PORTS = {"http": 8080, "https": 8443}
"""By scheme, as Trino's own documentation has them."""
DEFAULT_RETRIES = 3
DEFAULT_THREADS = 4
DEFAULT_USER = "floe"
_VARIABLES = "DBT_ENV_SECRET_FLOE_TRINO"
PASSWORD_VARIABLE = f"{_VARIABLES}_PASSWORD"
TOKEN_VARIABLE = f"{_VARIABLES}_TOKEN"
"""What the profile refers to. dbt takes variables of this prefix in profiles alone, and hides their values in its logs."""

_HOST = form(
    r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$",
    "the name or the address of a host, such as trino.example.com or [::1]",
)


def _check_token_url(url: str) -> str:
    address = urlsplit(url)
    if address.scheme == "http" and not is_loopback(address.hostname):
        raise NotAllowedError(
            "is not encrypted: the client secret goes there",
            allowed="https://, and http:// to this machine",
            fix="Use https://, and the port that speaks it.",
        )
    return url


def _check_user(user: str) -> str:
    if not user:
        problem = "is empty"
    elif ":" in user:
        problem = "holds a colon: a name and its password are sent as name:password"
    elif not user.isprintable() or user != user.strip() or any(ord(character) > 255 for character in user):
        problem = "cannot be sent to Trino: it goes into a header of HTTP"
    else:
        return user
    raise NotAllowedError(
        problem,
        allowed="printable Latin-1 without a colon, and without a space at either end",
        fix="Write the name that Trino knows, or leave user out.",
    )


def _check_certificate_file(path: str) -> str:
    if not os.path.isabs(path):
        raise NotAllowedError(
            "is no absolute path" if path else "is empty",
            allowed="an absolute path such as /etc/trino/ca.pem",
            fix="Write the path from / on: dbt runs in another folder. Leave it out for the system's authorities.",
        )
    return path


_User = Annotated[ProfileText, AfterValidator(_check_user), Field(json_schema_extra={"pattern": "^[^:]+$"})]
_CertificateFile = Annotated[ProfileText, AfterValidator(_check_certificate_file)]
_PropertyName = Annotated[
    str,
    Field(pattern=form(r"^[^\s=,]+$", "a name without spaces, commas and equals signs")),
    AfterValidator(check_profile_text),
]


def port_of(config: Mapping[str, Any]) -> int:
    """Return the port of the coordinator: the one that is named, or that of the scheme.

    Args:
        config: Settings of the engine.
    """
    return int(config.get("port") or DEFAULT_PORTS[config.get("http_scheme") or "http"])


class TrinoOAuth2Config(Section):
    """OAuth2 client credentials: Trino is shown a token, which is fetched before dbt starts."""

    token_url: Annotated[Url, AfterValidator(_check_token_url)] = Field(
        description="Token endpoint; https, on this machine http, too."
    )
    client_id: str = Field(description="OAuth2 client id; no secret.")
    client_secret: Secret = Field(description="OAuth2 client secret, by reference.")
    scope: str | None = Field(None, description="OAuth2 scope; the endpoint's own when absent.")


class TrinoConfig(Section):
    """A Trino cluster. Without password and oauth2 it asks nobody who he is."""

    host: Annotated[str, Field(pattern=_HOST)] = Field(
        description="Host name or address of the coordinator, without scheme and port."
    )
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Port of the coordinator; when absent 8443 with https, else 8080."
    )
    http_scheme: Literal["http", "https"] = Field("http", description="http or https.")
    catalog: Annotated[
        str,
        Field(
            pattern=form(
                r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", "letters, digits, hyphens and underscores, such as iceberg"
            )
        ),
    ] = Field(description="Trino catalog that stands for plugins.catalog.")
    user: _User | None = Field(
        None,
        description="User name, in Latin-1 without a colon; no secret. When absent the token's own with oauth2, else floe.",
    )
    password: Secret | None = Field(
        None, description="Password, by reference; needs user and http_scheme: https."
    )
    oauth2: TrinoOAuth2Config | None = Field(
        None, description="OAuth2 client credentials in place of a password; needs http_scheme: https."
    )
    certificate_file: _CertificateFile | None = Field(
        None,
        description="Absolute path of a PEM file with the authorities to trust, where dbt runs; the system's own when absent.",
    )
    session_properties: dict[_PropertyName, ProfileText] | None = Field(
        None, description="Trino session properties, those of a catalog with its name before them."
    )
    retries: Annotated[int, Field(ge=1, le=20)] = Field(
        DEFAULT_RETRIES,
        description="How often a request is sent at most where the coordinator does not answer.",
    )
    threads: Annotated[int, Field(ge=1, le=256)] = Field(DEFAULT_THREADS, description="dbt threads.")
    web_url: Url | None = Field(
        None,
        description="Where people reach Trino's pages, for links; the coordinator's address when absent.",
    )

    @model_validator(mode="after")
    def _has_a_port(self) -> Self:
        self.port = port_of({"port": self.port, "http_scheme": self.http_scheme})
        return self

    @field_validator("password", "oauth2", "certificate_file")
    @classmethod
    def _is_encrypted(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("http_scheme") == "http":
            raise NotAllowedError(
                "needs http_scheme: https",
                allowed=f"{info.field_name} beside http_scheme: https",
                fix=f"Set http_scheme: https and the port that speaks it, or remove {info.field_name}.",
            )
        return value

    @field_validator("password")
    @classmethod
    def _names_a_user(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and "user" in info.data and info.data["user"] is None:
            raise NotAllowedError(
                "needs a user whose password it is", allowed="password beside user", fix="Add `user:`."
            )
        return value

    @field_validator("oauth2")
    @classmethod
    def _is_the_only_one(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("password") is not None:
            raise NotAllowedError(
                "cannot stand beside password", allowed="one of the two", fix="Remove one of the two."
            )
        return value


class TrinoCompute(Section):
    type: Literal["trino"] = Field(description="Engine.")
    version: str | None = Field(None, description="Version the platform asks for; informative.")
    config: TrinoConfig = Field(description="Settings of Trino.")


def _dbt_output(slug: str, config: Mapping[str, Any]) -> dict[str, Any]:
    output: dict[str, Any] = {
        "type": "trino",
        "method": "none",
        "host": config["host"],
        "port": port_of(config),
        "database": config["catalog"],
        "schema": audit_schema(slug),
        "threads": config.get("threads") or DEFAULT_THREADS,
        "retries": config.get("retries") or DEFAULT_RETRIES,
    }
    if config.get("password"):
        output |= {"method": "ldap", "password": f"{{{{ env_var('{PASSWORD_VARIABLE}', '') }}}}"}
    elif config.get("oauth2"):
        output |= {"method": "jwt", "jwt_token": f"{{{{ env_var('{TOKEN_VARIABLE}', '') }}}}"}
    else:
        # The other methods are always encrypted, and know no scheme.
        output["http_scheme"] = config.get("http_scheme") or "http"
    user = config.get("user") or (None if config.get("oauth2") else DEFAULT_USER)
    if user:
        output["user"] = user
    if config.get("http_scheme") == "https":
        # Where nothing is said, dbt-trino trusts every certificate.
        output["cert"] = config.get("certificate_file") or True
    if config.get("session_properties"):
        output["session_properties"] = dict(config["session_properties"])
    return output


def _data_source(output: Mapping[str, Any]) -> DataSource:
    return DataSource(f"trino://{output['host']}:{output['port']}", output["database"])


def _needs(slug: str, config: Mapping[str, Any]) -> str:
    return (
        f"in Trino: a catalog {config.get('catalog')} of connector.name=iceberg, iceberg.catalog.type=rest, on the address and "
        f"warehouse of plugins.catalog; the right to create, write and drop tables and views in {audit_schema(slug)}, and to "
        f"read {slug}"
    )


TRINO = Engine(
    name="trino",
    title="Trino",
    plugin=TrinoCompute,
    dialect="trino",
    adapter="dbt-trino",
    extra="trino",
    writes_catalog=True,
    workspace="floe_dagster.execution.workspaces.trino.workspace:TrinoWorkspace",
    check="floe_dagster.platform.trino:check_trino",
    dbt_output=_dbt_output,
    data_source=_data_source,
    place=lambda output: f"{output['database']}.{output['schema']}",
    iceberg_types={"UUID": "uuid"},
    needs=_needs,
    catalog_settings=frozenset({"host", "port", "catalog"}),
    overlay=project_overlay,
)
