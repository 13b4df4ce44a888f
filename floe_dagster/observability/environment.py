"""In which environment this process runs: development, staging or production."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

Environment = Literal["dev", "staging", "prod"]
_NAMES: dict[str, Environment] = {
    "dev": "dev",
    "development": "dev",
    "staging": "staging",
    "prod": "prod",
    "production": "prod",
}


def deployment_environment(environ: Mapping[str, str] | None = None) -> Environment:
    """Return the environment, by what the platform itself says; nobody has to set a variable.

    `FLOE_ENVIRONMENT` decides where it is set. Else a branch deployment of Dagster+ is staging, Dagster+ and a pod of
    Kubernetes are production, everything else is development.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("FLOE_ENVIRONMENT", "").strip().lower()
    if named in _NAMES:
        return _NAMES[named]
    if environ.get("DAGSTER_CLOUD_IS_BRANCH_DEPLOYMENT", "").strip() in ("1", "true"):
        return "staging"
    if environ.get("DAGSTER_CLOUD_DEPLOYMENT_NAME") or environ.get("KUBERNETES_SERVICE_HOST"):
        return "prod"
    return "dev"
