"""What a pod has to be like: Kubernetes' pod security standard `restricted`, and the house's own rules."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from floe_dagster.schemas.resources import parse_quantity
from tests.deploy.chart.rendering import Document

SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|PRIVATE|ACCESS_KEY(?!_ID)")
MOVING_TAGS = {"latest", "main", "master", "stable", "edge", ""}


def containers(pod: Document) -> list[Document]:
    """Return all containers of a pod, those that start before it included."""
    spec = pod["spec"]
    return [*(spec.get("initContainers") or []), *spec["containers"]]


def insecure(pod: Document) -> Iterator[str]:
    """Yield what the standard `restricted` refuses in a pod."""
    spec = pod["spec"]
    shared: dict[str, Any] = spec.get("securityContext") or {}
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is on"
    for volume in spec.get("volumes") or []:
        kinds = set(volume) - {"name"}
        if not kinds <= {
            "configMap",
            "downwardAPI",
            "emptyDir",
            "ephemeral",
            "persistentVolumeClaim",
            "projected",
            "secret",
        }:
            yield f"volume {volume['name']}: {', '.join(sorted(kinds))}"
    for container in containers(pod):
        own: dict[str, Any] = container.get("securityContext") or {}
        name = container["name"]
        if own.get("privileged"):
            yield f"{name}: privileged"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: allowPrivilegeEscalation is not false"
        if not own.get("runAsNonRoot", shared.get("runAsNonRoot")):
            yield f"{name}: runAsNonRoot is not true"
        if own.get("runAsUser", shared.get("runAsUser")) in (0, None):
            yield f"{name}: runAsUser is root, or the image's choice"
        if (own.get("capabilities") or {}).get("drop") != ["ALL"]:
            yield f"{name}: does not drop all capabilities"
        if (own.get("capabilities") or {}).get("add"):
            yield f"{name}: adds capabilities"
        profile = (own.get("seccompProfile") or shared.get("seccompProfile") or {}).get("type")
        if profile not in ("RuntimeDefault", "Localhost"):
            yield f"{name}: seccomp profile is {profile}"


def writable_roots(pod: Document) -> Iterator[str]:
    """Yield containers that may write their image's files."""
    for container in containers(pod):
        if (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is not True:
            yield container["name"]


def without_bounds(pod: Document) -> Iterator[str]:
    """Yield containers that lack a request or a limit of CPU or memory."""
    for container in containers(pod):
        resources = container.get("resources") or {}
        for kind in ("requests", "limits"):
            for amount in ("cpu", "memory"):
                if amount not in (resources.get(kind) or {}):
                    yield f"{container['name']}: no {kind}.{amount}"


def moving_images(pod: Document) -> Iterator[str]:
    """Yield containers whose image may be another one tomorrow."""
    for container in containers(pod):
        repository, _, tag = container["image"].rpartition(":")
        if not repository or "/" in tag or tag in MOVING_TAGS:
            yield f"{container['name']}: {container['image']}"


def plain_secrets(pod: Document) -> Iterator[str]:
    """Yield variables that are named like a secret and hold a value of their own."""
    for container in containers(pod):
        for entry in container.get("env") or []:
            value = str(entry.get("value") or "")
            if value and SECRET_NAME.search(entry["name"]) and not value.startswith("$("):
                yield f"{container['name']}: {entry['name']}"


def without_probes(pod: Document) -> Iterator[str]:
    """Yield containers that run for ever and that nobody looks at."""
    for container in pod["spec"]["containers"]:
        for probe in ("readinessProbe", "livenessProbe"):
            if not container.get(probe):
                yield f"{container['name']}: no {probe}"


def needed_secrets(pod: Document) -> set[str]:
    """Return names of the Secrets that a pod reads."""
    names = set()
    for container in containers(pod):
        names |= {
            entry["secretRef"]["name"] for entry in container.get("envFrom") or [] if "secretRef" in entry
        }
        for entry in container.get("env") or []:
            reference = (entry.get("valueFrom") or {}).get("secretKeyRef")
            if reference:
                names.add(reference["name"])
    for volume in pod["spec"].get("volumes") or []:
        sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
        found = [source["secret"] for source in sources if "secret" in source]
        names |= {secret.get("secretName") or secret["name"] for secret in found}
    return names


def disk(pod: Document, kind: str) -> Decimal | None:
    """Return what Kubernetes takes for a pod's ephemeral storage: of those that run together the sum, or of one before it.

    Args:
        pod: Metadata and spec.
        kind: `requests` or `limits`.
    """

    def amounts(of: str) -> list[Decimal]:
        found = [((c.get("resources") or {}).get(kind) or {}) for c in pod["spec"].get(of) or []]
        return [parse_quantity(str(a["ephemeral-storage"])) for a in found if "ephemeral-storage" in a]

    together, before = amounts("containers"), amounts("initContainers")
    return max(sum(together, Decimal(0)), *before, Decimal(0)) if together or before else None


def scratch(pod: Document) -> Decimal:
    """Return what a pod's volumes may take of its node's disk; one without a limit is infinite."""
    volumes = [volume["emptyDir"] for volume in pod["spec"].get("volumes") or [] if "emptyDir" in volume]
    return sum((parse_quantity(v.get("sizeLimit", "1000P")) for v in volumes), Decimal(0))


def unknown_mounts(pod: Document, *claims: str) -> Iterator[str]:
    """Yield what a container mounts, whenever it starts, and the pod does not have.

    Args:
        pod: Metadata and spec.
        claims: Volumes that its workload gives it.
    """
    volumes = {volume["name"] for volume in pod["spec"].get("volumes") or []} | set(claims)
    for container in containers(pod):
        for mount in container.get("volumeMounts") or []:
            if mount["name"] not in volumes:
                yield f"{container['name']}: {mount['name']}"


def mounted_config_maps(pod: Document) -> dict[str, str]:
    """Return, by where they are mounted in the main container, names of the ConfigMaps; subpaths are left out."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or []}
    return {
        mount["mountPath"]: volumes[mount["name"]]["configMap"]["name"]
        for mount in pod["spec"]["containers"][0].get("volumeMounts") or []
        if "configMap" in volumes[mount["name"]] and not mount.get("subPath")
    }
