"""The official charts: that the pinned versions were released, and what their templates make of our values.

Their repositories cannot be reached from here, so what they have is written down, with where it was seen. Whoever raises a
version looks it up there and adds it; a version that somebody has only planned is in none of these lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.chart import pods
from tests.deploy.chart.rendering import (
    RELEASE,
    STAND_INS,
    VALUE_FILES,
    Rendered,
    chart_metadata,
    render,
    rendered,
    template,
    value_file,
)
from tests.deploy.chart.test_pods import FILTERED
from tests.deploy.chart.test_values import locked
from tests.deploy.production.platform import platform


@dataclass(frozen=True)
class Released:
    """What a chart's repository has.

    Args:
        repository: Where Helm fetches it.
        versions: Of the chart, each with its appVersion.
        seen: Where, and when.
    """

    repository: str
    versions: dict[str, str]
    seen: str


RELEASED = {
    "dagster": Released(
        "https://dagster-io.github.io/helm",
        {"1.10.5": "1.10.5", "1.12.11": "1.12.11", locked("dagster"): locked("dagster")},
        "Assumed: a chart for each version of the Python package, as helm/dagster/README.md of dagster-io/dagster says ('a 1:1 "
        "correspondence'), so the locked one counts as released. Copies of 1.10.5 and uses of 1.12.11 were seen in public "
        "repositories; the index itself was not.",
    ),
    "polaris": Released(
        "https://downloads.apache.org/polaris/helm-chart",
        {version: version for version in ("1.4.0", "1.4.1", "1.5.0", "1.6.0", "1.7.0")},
        "Tags apache-polaris-* of apache/polaris without a -rc, each with helm/polaris/Chart.yaml of that version, August 2026. "
        "Assumed: each was published, as the release guide says. Since February 2026 the index keeps those that moved to "
        "archive.apache.org (releasey/bin/build-helm-index.sh).",
    ),
    "minio": Released(
        "https://charts.min.io",
        {
            "5.4.0": "RELEASE.2024-12-18T13-15-44Z",
            "5.3.0": "RELEASE.2024-04-18T19-09-19Z",
            "5.2.0": "RELEASE.2024-04-18T19-09-19Z",
        },
        "index.yaml and helm-releases/ of minio/minio, which charts.min.io serves; the last entry is of January 2025. Chart.yaml of "
        "its main branch says 5.5.0, which was never released.",
    ),
    "opentelemetry-collector": Released(
        "https://open-telemetry.github.io/opentelemetry-helm-charts",
        {
            "0.158.0": "0.153.0",
            "0.158.1": "0.153.0",
            "0.158.2": "0.153.0",
            "0.159.0": "0.154.0",
            "0.159.1": "0.154.0",
            "0.159.2": "0.154.0",
        },
        "index.yaml on gh-pages of open-telemetry/opentelemetry-helm-charts, 20 August 2026 (the newest is 0.170.0), and the tags "
        "opentelemetry-collector-*. 0.158.3 exists in a pull request alone (2273, not merged).",
    ),
}

IMAGES = {
    "polaris": lambda values: values["polaris"]["image"],
    "minio": lambda values: values["minio"]["image"],
    "opentelemetry-collector": lambda values: values["otel-collector"]["image"],
}
"""Where values.yaml names the image that a chart is made for."""


def unreleased(dependencies: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the dependencies that no repository has."""
    for entry in dependencies:
        known = RELEASED.get(entry["name"])
        if known is None or entry["repository"] != known.repository:
            yield f"{entry['name']}: {entry['repository']} is not the official repository"
        elif entry["version"] not in known.versions:
            yield f"{entry['name']} {entry['version']}: never released, as far as was seen; {known.seen}"


def test_every_pinned_chart_was_released() -> None:
    assert list(unreleased(chart_metadata()["dependencies"])) == []


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("opentelemetry-collector", "0.158.3"),
        ("minio", "5.5.0"),
        ("polaris", "1.2.1"),
        ("dagster", "1.13.9999"),
        ("opentelemetry-collector", "^0.158.0"),
    ],
)
def test_a_version_that_was_only_planned_is_noticed(name: str, version: str) -> None:
    (entry,) = [entry for entry in chart_metadata()["dependencies"] if entry["name"] == name]
    (said,) = unreleased([{**entry, "version": version}])
    assert said.startswith(f"{name} {version}: never released")


def test_another_repository_is_noticed() -> None:
    entry = {**chart_metadata()["dependencies"][0], "repository": "https://charts.example.com"}
    (said,) = unreleased([entry])
    assert "not the official repository" in said


@pytest.mark.parametrize("name", RELEASED)
def test_the_stand_in_and_the_image_are_of_the_pinned_version(name: str) -> None:
    (pinned,) = [entry["version"] for entry in chart_metadata()["dependencies"] if entry["name"] == name]
    stand_in = yaml.safe_load((STAND_INS / name / "Chart.yaml").read_text())
    assert (stand_in["version"], stand_in["appVersion"]) == (pinned, RELEASED[name].versions[pinned])
    if name in IMAGES:
        assert IMAGES[name](value_file("values.yaml"))["tag"] == stand_in["appVersion"]


# --- Names of images -------------------------------------------------------------------------------------------------------

OURS = "floe-dagster-demo"
_IMAGE = re.compile(
    r"(?P<registry>[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?)/(?P<path>[a-z0-9_-]+(?:/[a-z0-9_.-]+)*)"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]*|@sha256:[0-9a-f]{64})"
)


def misnamed(image: str) -> str | None:
    """Return what is wrong with the name of an image; None where it is as Docker's own reference grammar has it.

    The first part of a name that has a dot or a port is the registry; a second such part is a folder that no registry has.
    """
    found = _IMAGE.fullmatch(image)
    if found is None:
        return None if image.partition(":")[0] == OURS else "no registry, or no tag or digest"
    first = found["path"].partition("/")[0]
    return "the registry stands twice" if "." in first or first == "localhost" else None


def images(chart: Rendered) -> dict[str, str]:
    """Return every image of a chart's pods, by pod and container."""
    return {
        f"{name}/{container['name']}": container["image"]
        for name, pod in chart.pods()
        if name not in FILTERED
        for container in pods.containers(pod)
    }


@pytest.mark.parametrize("values", VALUE_FILES)
def test_every_image_names_its_registry_once(values: str) -> None:
    found = images(rendered(values))
    assert len(found) >= 12
    assert {place: image for place, image in found.items() if misnamed(image)} == {}
    waits = {
        image for place, image in found.items() if "check-db-ready" in place or "wait-for-database" in place
    }
    assert waits == {"docker.io/library/postgres:17.6"}


def test_the_production_files_name_every_registry_once() -> None:
    found = images(platform())
    assert len(found) >= 12 and {place: image for place, image in found.items() if misnamed(image)} == {}
    assert {image for image in found.values() if OURS in image} == set()


@pytest.mark.parametrize(
    ("image", "is_wrong"),
    [
        ("docker.io/library/postgres:17.6", False),
        ("docker.io/docker.io/library/postgres:17.6", True),
        ("registry.example.com:5000/data/products:1.4.0", False),
        ("registry.example.com/docker.io/otel/collector:1", True),
        ("registry.example.com/data/docker.io:1", False),
        (f"quay.io/minio/minio@sha256:{'0' * 64}", False),
        ("quay.io/minio/minio", True),
        ("library/postgres:17.6", True),
        ("/library/postgres:17.6", True),
        ("<nil>/library/postgres:17.6", True),
        (f"{OURS}:0.1.0", False),
    ],
)
def test_a_registry_that_stands_twice_or_nowhere_is_seen(image: str, is_wrong: bool) -> None:
    assert bool(misnamed(image)) is is_wrong


def test_a_mirror_takes_the_place_of_each_registry() -> None:
    mirror, digest = "mirror.example.com", f"sha256:{'1' * 64}"
    changes = {
        "postgresql": {"image": {"repository": f"{mirror}/library/postgres"}},
        "dagster": {
            "postgresql": {"image": {"registry": mirror}},
            "busybox": {"image": {"repository": f"{mirror}/library/busybox"}},
            "dagsterDaemon": {"image": {"repository": f"{mirror}/products", "digest": digest}},
        },
        "polaris": {"image": {"repository": f"{mirror}/apache/polaris"}},
        "minio": {"image": {"repository": f"{mirror}/minio/minio"}},
        "marquez": {"image": {"repository": f"{mirror}/marquezproject/marquez"}},
        "otel-collector": {"image": {"repository": f"{mirror}/otel/collector", "digest": digest}},
    }
    found = images(render("values-demo.yaml", changes=changes))
    assert {place: image for place, image in found.items() if misnamed(image)} == {}
    elsewhere = {image for image in found.values() if not image.startswith((mirror, OURS))}
    # That one stands in a list of init containers, which a file of values replaces as a whole.
    assert elsewhere == {"docker.io/library/postgres:17.6"}
    assert found[f"Deployment/{RELEASE}-dagster-daemon/dagster"] == f"{mirror}/products@{digest}"
    assert found[f"Deployment/{RELEASE}-otel-collector/otel-collector"] == f"{mirror}/otel/collector@{digest}"


def test_a_registry_for_all_charts_is_refused_because_one_alone_knows_it() -> None:
    done = template(changes={"global": {"imageRegistry": "mirror.example.com"}})
    assert done.returncode != 0 and "global.imageRegistry" in done.stderr and "repository" in done.stderr


# --- What stays after an uninstall -----------------------------------------------------------------------------------------

KEEP = "helm.sh/resource-policy"


def goes_with_the_release(document: dict[str, Any]) -> bool:
    """Tell whether Helm removes an object when the release is uninstalled: unless it is kept, or was made by a hook."""
    annotations = document["metadata"].get("annotations") or {}
    return annotations.get(KEEP) != "keep" and "helm.sh/hook" not in annotations


def variants() -> list[Any]:
    outbox = {"outbox": {"persistence": {"enabled": True}}}
    # Only the pods that lack a mount of the outbox would be refused.
    without_pods = {"dagster": {"enabled": False}}
    everything = {**outbox, **without_pods}
    return [
        *(pytest.param(values, {}, id=values) for values in VALUE_FILES),
        pytest.param("values-demo.yaml", everything, id="with an outbox"),
        pytest.param("values-demo.yaml", {"minio": {"persistence": {"size": "1Gi"}}}, id="another size"),
    ]


@pytest.mark.parametrize(("values", "changes"), variants())
def test_no_volume_goes_with_the_release(values: str, changes: dict[str, Any]) -> None:
    chart = render(values, changes=changes)
    claims = chart.of("PersistentVolumeClaim")
    assert [claim["metadata"]["name"] for claim in claims if goes_with_the_release(claim)] == []
    if values != "values.yaml":
        assert f"{RELEASE}-minio" in {claim["metadata"]["name"] for claim in claims}
    # Kubernetes keeps the claims of a StatefulSet, and so does Helm, which never made them; unless it is told otherwise.
    sets = chart.of("StatefulSet")
    assert [entry["metadata"]["name"] for entry in sets] == [f"{RELEASE}-postgresql"]
    for entry in sets:
        assert entry["spec"]["volumeClaimTemplates"]
        assert "persistentVolumeClaimRetentionPolicy" not in entry["spec"]


@pytest.mark.parametrize("values", ["values-demo.yaml", "values-test.yaml"])
def test_what_is_made_at_random_and_what_hooks_made_stays(values: str) -> None:
    chart = rendered(values)
    secrets = chart.of("Secret")
    assert secrets and not [secret["metadata"]["name"] for secret in secrets if goes_with_the_release(secret)]
    hooks = [d for d in chart.documents if "helm.sh/hook" in (d["metadata"].get("annotations") or {})]
    policies = {
        d["metadata"]["annotations"].get("helm.sh/hook-delete-policy", "before-hook-creation") for d in hooks
    }
    assert policies == {"before-hook-creation"}


def test_the_page_names_what_stays() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    paragraph = re.search(r"What stays: (.*?)\n\n", page, re.DOTALL)
    assert paragraph is not None
    for word in ("PostgreSQL", "MinIO", "outbox", "generated Secrets", "hooks"):
        assert word in paragraph[1]
