"""What docs/operations.md tells to do in a pod, done in one."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.conftest import ROOT
from tests.deploy.image.container import Pod

PAGE = (ROOT / "docs" / "operations.md").read_text()
EMBEDDED = {"FLOE_MANIFEST": "/app/manifests/local.yaml"}


def test_the_commands_of_the_toolbox_show_what_was_published(pod: Callable[..., Pod]) -> None:
    (commands,) = re.findall(r"\nIn it:\n\n```sh\n(.*?)```", PAGE, re.DOTALL)
    pod = pod(**EMBEDDED)
    published = pod.run("floe-dagster", "run", "customer_360")
    assert published.returncode == 0, published.stdout + published.stderr
    done = pod.run("sh", "-ec", commands)
    assert done.returncode == 0, done.stdout + done.stderr
    # The baked state names another platform: what is shown is what lies in the catalog of this one.
    assert "customer_360 takes tables" in done.stdout and "FAILED" not in done.stdout
    assert "file:///var/lib/floe/warehouse/customer_360/mart_customer_360" in done.stdout


def test_the_commands_for_a_code_server_deliver_what_waits(pod: Callable[..., Pod]) -> None:
    block = re.findall(
        r"exec deploy/\S+ -- (floe-dagster lineage status)\n.*? -- sh -c '(.*?)'\n", PAGE, re.DOTALL
    )
    ((status, replay),) = block
    pod = pod(**EMBEDDED)
    looked = pod.run("sh", "-c", status)
    assert looked.returncode == 0, looked.stderr
    assert "/var/lib/floe/outbox/customer_360/lineage" in looked.stdout
    done = pod.run("sh", "-c", replay)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "customer_360" in done.stdout and not (pod.volume / "tmp" / "demo").exists()
