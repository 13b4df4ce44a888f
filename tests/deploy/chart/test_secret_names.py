"""Names of Secrets that stand in two places: the chart says both where they differ."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.deploy.chart.pods import needed_secrets
from tests.deploy.chart.rendering import RELEASE, render, template, value_file

OTHER: list[dict[str, str]] = [{"name": "other"}]


def location(name: str, secrets: list[dict[str, str]]) -> dict[str, Any]:
    """Return changes that give one code location other Secrets."""
    entries = copy.deepcopy(value_file("values.yaml")["dagster"]["dagster-user-deployments"]["deployments"])
    for entry in entries:
        if entry["name"] == name:
            entry["envSecrets"] = secrets
    return {"dagster": {"dagster-user-deployments": {"deployments": entries}}}


def of_polaris(name: str, secret: str, key: str) -> dict[str, Any]:
    reference = {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
    return {"polaris": {"extraEnv": [reference]}}


LAUNCHER = {"runLauncher": {"config": {"k8sRunLauncher": {"envSecrets": OTHER}}}}


@pytest.mark.parametrize(
    ("values", "changes", "one", "two"),
    [
        (
            "values.yaml",
            location("iot-telemetry", OTHER),
            'secrets.storage is "floe-storage"',
            'envSecrets of the code location iot-telemetry names ["other"]',
        ),
        (
            "values.yaml",
            location("customer-360", []),
            'secrets.storage is "floe-storage"',
            "envSecrets of the code location customer-360 names []",
        ),
        (
            "values.yaml",
            {"dagster": {"dagsterWebserver": {"envSecrets": OTHER}}},
            'secrets.storage is "floe-storage"',
            'dagster.dagsterWebserver.envSecrets names ["other"]',
        ),
        (
            "values.yaml",
            {"dagster": {"dagsterDaemon": {"envSecrets": OTHER}}},
            'secrets.storage is "floe-storage"',
            'dagster.dagsterDaemon.envSecrets names ["other"]',
        ),
        (
            "values.yaml",
            {"secrets": {"storage": "mine"}},
            'secrets.storage is "mine"',
            'names ["floe-storage"]',
        ),
        (
            "values.yaml",
            {"dagster": LAUNCHER},
            'secrets.runs is "floe-runs"',
            'dagster.runLauncher.config.k8sRunLauncher.envSecrets names ["other"]',
        ),
        (
            "values-demo.yaml",
            {"minio": {"existingSecret": "other"}},
            'secrets.storeAdministration is "floe-store-admin"',
            'minio.existingSecret names ["other"]',
        ),
        (
            "values.yaml",
            {"minio": {"enabled": True}},
            'secrets.storeAdministration is ""',
            'minio.existingSecret names ["floe-store-admin"]',
        ),
        (
            "values-demo.yaml",
            of_polaris("AWS_SECRET_ACCESS_KEY", "floe-storage", "AWS_SECRET_ACCESS_KEY"),
            'secrets.warehouse is "floe-warehouse"',
            'polaris.extraEnv (AWS_SECRET_ACCESS_KEY) names ["floe-storage"]',
        ),
        (
            "values-demo.yaml",
            of_polaris("POLARIS_ROOT_CLIENT_SECRET", "other", "POLARIS_ROOT_CLIENT_SECRET"),
            'secrets.catalogAdministration is "floe-catalog-admin"',
            'polaris.extraEnv (POLARIS_ROOT_CLIENT_SECRET) names ["other"]',
        ),
    ],
)
def test_names_that_differ_are_both_said(values: str, changes: dict[str, Any], one: str, two: str) -> None:
    done = template(values, changes=changes)
    assert done.returncode != 0
    assert one in done.stderr and two in done.stderr and "set one to the other" in done.stderr


def test_a_secret_more_is_nobody_s_business() -> None:
    more = [{"name": "floe-storage"}, *OTHER]
    pod = render(changes=location("customer-360", more)).pod(
        f"Deployment/{RELEASE}-dagster-user-deployments-customer-360"
    )
    assert {"floe-storage", "other"} <= needed_secrets(pod)


def test_pods_with_an_identity_need_no_keys() -> None:
    changes = location("", [])
    for entry in changes["dagster"]["dagster-user-deployments"]["deployments"]:
        entry["envSecrets"] = []
    changes["dagster"] |= {"dagsterWebserver": {"envSecrets": []}, "dagsterDaemon": {"envSecrets": []}}
    chart = render(changes={**changes, "secrets": {"storage": "", "storeAdministration": "floe-store-admin"}})
    assert "floe-storage" not in str(chart.documents)
    generated = render(changes={**changes, "secrets": {"storage": "", "generate": True}})
    assert all(secret["metadata"]["name"] for secret in generated.of("Secret"))


def test_parts_that_are_not_there_name_nothing() -> None:
    without = {"dagster": {"enabled": False, **LAUNCHER}, "minio": {"existingSecret": "other"}}
    assert template(changes=without).returncode == 0
