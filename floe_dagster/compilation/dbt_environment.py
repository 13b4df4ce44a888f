"""What a dbt process may know: variables of its environment by name, and no other process.

A product's Jinja reads each variable of dbt's environment with `env_var`, its SQL reads `/proc/self/environ`. So dbt gets what
programs need to run, what floe-dagster sets, and what product and platform agree on by name: `environment` in floe.yaml, and
`governance.environment` in the manifest.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from floe_dagster.compilation import dbt_child
from floe_dagster.credentials import environment_name
from floe_dagster.findings import Finding
from floe_dagster.home import FloeHome

if TYPE_CHECKING:
    from floe_dagster.compilation.documents import Document
    from floe_dagster.compilation.inheritance import ManifestChain
    from floe_dagster.compilation.validation import Parsed
    from floe_dagster.schemas.product import ProductSpec

PASSED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TEMP", "TMP", "TZ", "LANG", "LANGUAGE"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
        # An environment without these does not find its own modules and libraries.
        *("PYTHONPATH", "PYTHONHOME", "PYTHONUTF8", "PYTHONIOENCODING", "LD_LIBRARY_PATH"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),
    }
)
"""Variables that every dbt process gets, and `LC_…`: what a program needs to run. None of them is a secret."""
PROXIES = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"})
"""In lower case, too. Addresses of proxies that hold a user or a password are not passed."""
GIT = frozenset({"SSH_AUTH_SOCK", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO"})
"""What git needs besides where `dbt deps` fetches packages with it."""
NOT_PROVIDED = re.compile(r"Env var required but not provided: '([^']+)'")
"""What dbt says of a variable that it did not get (`EnvVarMissingError` in `dbt/exceptions.py`)."""
_READING = re.compile(r"\benv_var\s*\(\s*['\"](\w+)['\"]\s*(,?)")
_WITH_JINJA = frozenset({".sql", ".yml", ".yaml", ".md", ".py"})
SETTINGS = {
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DBT_VERSION_CHECK": "false",
    "DO_NOT_TRACK": "1",
}


def dbt_environment(
    home: FloeHome,
    environ: Mapping[str, str] | None = None,
    *,
    names: Iterable[str] = (),
) -> dict[str, str]:
    """Return the whole environment of a dbt process.

    dbt's usage statistics and its look for newer versions are off.

    Args:
        home: The writable folder, which the profile refers to.
        environ: Of this process; `os.environ` when left out.
        names: Of the variables that product and platform agree on.
    """
    return {**passed_variables(environ, names), "FLOE_HOME": str(home.path), **SETTINGS}


def passed_variables(environ: Mapping[str, str] | None = None, names: Iterable[str] = ()) -> dict[str, str]:
    """Return the part of an environment that a dbt process gets.

    Args:
        environ: Of this process; `os.environ` when left out.
        names: Further variables to pass.
    """
    environ = os.environ if environ is None else environ
    names = frozenset(names)
    return {name: value for name, value in environ.items() if name in names or _is_passed(name, value)}


def _is_passed(name: str, value: str) -> bool:
    if name.upper() in PROXIES:
        return "@" not in value
    return name in PASSED or name.startswith("LC_")


def not_passed(name: str) -> str:
    """Return what to do where dbt misses a variable.

    Args:
        name: Of the variable.
    """
    return (
        f"dbt gets only variables that are listed: write `environment: [{name}]` in floe.yaml, let the platform allow it in "
        f"its manifest with `governance: {{environment: [{name}]}}`, and set {name} where floe-dagster runs."
    )


def confined(command: Sequence[str], *, parent: int = 0) -> list[str]:
    """Return a command that sees no other process on a Linux with Landlock.

    Args:
        command: Path of the program, and its arguments.
        parent: Id of the process whose thread starts it, and with which it ends; 0 where it does not.
    """
    if os.name != "posix":
        return list(command)
    return [sys.executable, "-I", "-S", str(Path(dbt_child.__file__)), str(parent), *command]


def is_confining() -> bool:
    """Tell whether a model's SQL is kept from the environment of other processes: by Landlock, or since there is no /proc."""
    return sys.platform != "linux" or dbt_child.landlock_version() > 0


def check_environment(
    spec: Parsed[ProductSpec], chain: ManifestChain, allowed: Sequence[str]
) -> list[Finding]:
    """Return what is wrong with the variables that a product asks for, and with those that the platform allows.

    Args:
        spec: The product spec.
        chain: The manifests, nearest first.
        allowed: What the platform lets the product read.
    """
    findings = []
    secrets = {
        name for layer in chain.layers if layer.value for name in _references(layer.value.model_dump())
    }
    for layer in chain.layers:
        governance = layer.value.governance if layer.value else None
        for position, name in enumerate((governance.environment if governance else None) or ()):
            if name in secrets:
                findings.append(
                    _finding(
                        layer.document,
                        ("governance", "environment", position),
                        f"{name} holds a credential of the platform, which a product must not read",
                        name,
                        "variables that the manifest refers to nowhere",
                        "Take it out of the list. Give products a variable of their own with fewer rights.",
                    )
                )
    if spec.value is None:
        return findings
    for position, name in enumerate(spec.value.environment or ()):
        if name not in allowed:
            findings.append(
                _finding(
                    spec.document,
                    ("environment", position),
                    f"the platform does not allow products to read the environment variable {name}",
                    name,
                    ", ".join(allowed) or "none; governance.environment of the manifest lists none",
                    f"Take it out, or ask the platform team to add {name} to governance.environment of the manifest.",
                )
            )
    return findings


def place_missing(
    findings: Sequence[Finding], folder: Path, shown: str, listed: Collection[str], environ: Mapping[str, str]
) -> list[Finding]:
    """Return dbt's findings, those about a variable that it did not get with the place that reads it.

    dbt names no file for them.

    Args:
        findings: Of dbt.
        folder: With the sources of the project.
        shown: Display path of the product's folder.
        listed: Names of the variables that product and platform agree on.
        environ: Of this process.
    """
    placed = []
    for finding in findings:
        if missing := NOT_PROVIDED.search(finding.message):
            name = missing.group(1)
            changes: dict[str, Any] = {
                "code": "environment-not-allowed",
                "message": f"dbt does not get the environment variable {name}",
                "found": name,
                "fix": not_passed(name),
            }
            if name in listed:
                changes |= {
                    "code": "environment-not-set",
                    "message": f"the environment variable {name} is listed and allowed, but it is not set here",
                    "fix": f"Set it where floe-dagster runs (`export {name}=…`), or give a default: env_var('{name}', '…').",
                }
            elif name not in environ:
                changes["message"] += ", and it is not set here"
            place = next((each for each in _readings(folder) if each[2] == name), None)
            if place:
                changes |= {"file": f"{shown}/{place[0]}", "line": place[1]}
            finding = replace(finding, **changes)
        placed.append(finding)
    return placed


def check_ignored(
    folder: Path, shown: str, environ: Mapping[str, str], passed: Collection[str]
) -> list[Finding]:
    """Return a warning for each variable that is set here, that the project reads, and that dbt does not get.

    With a default of its own a project would take that in silence.

    Args:
        folder: With the sources of the project.
        shown: Display path of the product's folder.
        environ: Of this process.
        passed: Names of the variables that dbt gets.
    """
    return [
        Finding(
            code="environment-not-passed",
            severity="warning",
            message=f"the environment variable {name} is set, but dbt does not get it and takes the default of env_var",
            file=f"{shown}/{file}",
            line=line,
            found=name,
            fix=not_passed(name),
        )
        for file, line, name, has_default in _readings(folder)
        if has_default and name in environ and name not in passed
    ]


def _readings(folder: Path) -> Iterator[tuple[str, int, str, bool]]:
    """Yield file, line and name of each variable that the project itself reads, and whether it has a default."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.suffix not in _WITH_JINJA or "dbt_packages" in name.parts or not path.is_file():
            continue
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            for found, comma in _READING.findall(line):
                yield name.as_posix(), number, found, bool(comma)


def _references(value: Any) -> Iterator[str]:
    """Yield the environment variables that a document refers to."""
    if name := environment_name(value):
        yield name
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _references(item)


def _finding(
    document: Document, path: tuple[str | int, ...], message: str, found: str, allowed: str, fix: str
) -> Finding:
    line, column = document.position(path)
    return Finding(
        code="environment-not-allowed",
        severity="error",
        message=message,
        file=document.display,
        line=line,
        column=column,
        field=".".join(str(part) for part in path if isinstance(part, str)) + f"[{path[-1]}]",
        found=found,
        allowed=allowed,
        fix=fix,
    )
