"""A Dagster instance of one pod, in place of PostgreSQL and an object store."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.image.container import Pod

INSTANCE = """\
telemetry: {enabled: false}
storage:
  sqlite: {base_dir: /var/lib/floe/dagster}
defs_state_storage:
  module: dagster._core.storage.defs_state.blob_storage_state_storage
  class: UPathDefsStateStorage
  config: {base_path: /var/lib/floe/dagster/state}
local_artifact_storage:
  module: dagster.core.storage.root
  class: LocalArtifactStorage
  config: {base_dir: /tmp/dagster}
# Launches at once; the daemon's queue is not what is tested here.
run_coordinator:
  module: dagster._core.run_coordinator
  class: DefaultRunCoordinator
concurrency:
  pools: {default_limit: 1, granularity: op}
"""


def write_instance(pod: Pod) -> Path:
    """Give a pod the settings of an instance, read-only as the chart mounts them; returns where it keeps its data."""
    pod.mount_settings({"dagster.yaml": INSTANCE}, "/etc/dagster")
    pod.environ["DAGSTER_HOME"] = "/etc/dagster"
    return pod.home / "dagster"
