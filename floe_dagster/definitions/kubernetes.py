"""What Kubernetes is told of a product's runs: resources, secrets by reference, labels.

Tags of a job reach the run's pod, tags of an op reach the pod of its step where an executor starts one; so both carry them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from floe_dagster.credentials import kubernetes_references
from floe_dagster.schemas.artifacts import CompiledArtifacts
from floe_dagster.schemas.product_index import ProductFacts

Task = Literal["compile", "run", "maintenance", "health"]
CONFIG = "dagster-k8s/config"
PREFIX = "floe.dev"
"""Of labels and annotations: those of `app.kubernetes.io` are Dagster's, and the chart's selectors count on them."""
LABEL_LENGTH = 63


def kubernetes_tags(
    product: ProductFacts | str, task: Task, artifact: CompiledArtifacts | None = None
) -> dict[str, Any]:
    """Return the tags of a job, and of its ops, by which their pods get what they need.

    Args:
        product: What was compiled of it; its name alone where nothing is yet.
        task: What the pod is for.
        artifact: What was compiled: it names the secrets.
    """
    facts = product if isinstance(product, ProductFacts) else None
    container: dict[str, Any] = {}
    if facts and facts.resources:
        container["resources"] = facts.resources
    env = [
        {
            "name": variable,
            "value_from": {
                "secret_key_ref": {
                    "name": name,
                    "key": key,
                    # A pod waits for a Secret that is not there; the compilation that mends its name must not.
                    **({"optional": True} if task == "compile" else {}),
                }
            },
        }
        for variable, (name, key) in sorted(_secret_variables(artifact).items())
    ]
    if env:
        container["env"] = env
    labels = _labels(product, task)
    config: dict[str, Any] = {
        "pod_template_spec_metadata": {
            "labels": labels,
            "annotations": _annotations(facts.owner if facts else None),
        },
        "job_metadata": {"labels": labels},
    }
    if container:
        config["container_config"] = container
    return {CONFIG: config}


def _labels(product: ProductFacts | str, task: Task) -> dict[str, str]:
    """Return labels to select pods by: policies of the network, cost reports, `kubectl get pods -l`."""
    own: dict[str, str | None] = {"task": task}
    free: dict[str, str | None] = {}
    if isinstance(product, ProductFacts):
        own |= {"product": product.name, "version": product.version, "preset": product.preset}
        free = {f"label-{name}": value for name, value in product.labels.items()}
    else:
        own["product"] = product
    return {
        f"{PREFIX}/{_label(name)}": label
        for name, value in {**free, **own}.items()
        if value and (label := _label(value))
    }


def _annotations(owner: str | None) -> dict[str, str]:
    return {
        # A node that is emptied to save money waits for the run to end.
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
        **({f"{PREFIX}/owner": owner} if owner else {}),
    }


def _label(text: str) -> str:
    """Return the text as a label's value may look: 63 characters, letters and digits at both ends."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:LABEL_LENGTH].strip("_.-")


def _secret_variables(artifact: CompiledArtifacts | None) -> dict[str, tuple[str, str]]:
    """Return name and key of the Kubernetes Secret by environment variable."""
    return {
        variable: (name, key)
        for holder in _holders(artifact)
        for variable, name, key in kubernetes_references(holder)
    }


def _holders(artifact: CompiledArtifacts | None) -> Iterator[Any]:
    if artifact is None:
        return
    if artifact.plugins:
        engines = artifact.plugins.engines().values()
        plugins = (*engines, artifact.plugins.catalog, artifact.plugins.storage)
        yield from (plugin.config for plugin in plugins if plugin)
    yield artifact.observability.telemetry.authentication
    yield artifact.observability.lineage_api_key
