"""What Helm prints after an install: commands that name what is there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.chart.rendering import (
    KUBERNETES,
    MANIFEST,
    NAMESPACE,
    RELEASE,
    chart_folder,
    needed,
    rendered,
    run_helm,
)


@pytest.fixture
def shown(tmp_path: Path) -> Any:
    """Helm prints its notes only where there is a cluster; here they are rendered as one document more."""
    folder = tmp_path / "floe-platform"
    shutil.copytree(chart_folder(), folder)
    text = (folder / "templates" / "NOTES.txt").read_text()
    (folder / "templates" / "shown.yaml").write_text(
        '{{- define "notes" -}}' + text + '{{- end -}}\nshown: {{ include "notes" . | toJson }}\n'
    )

    def show(values: str) -> str:
        done = run_helm(
            *("template", RELEASE, str(folder), "-n", NAMESPACE, "--values", str(folder / values), *needed()),
            *(
                "--set-file",
                f"manifest={MANIFEST}",
                "--kube-version",
                KUBERNETES,
                "--show-only",
                "templates/shown.yaml",
            ),
        )
        assert done.returncode == 0, done.stderr
        notes: str = yaml.safe_load(done.stdout)["shown"]
        return notes

    return show


@pytest.mark.parametrize("values", ["values.yaml", "values-demo.yaml"])
def test_the_commands_name_what_is_there(shown: Any, values: str) -> None:
    notes, chart = shown(values), rendered(values)
    jobs = set(re.findall(r"job/([\w-]+)", notes))
    assert jobs == {d["metadata"]["name"] for d in chart.of("Job")}
    ((service, port),) = re.findall(r"svc/([\w-]+) 3000:(\d+)", notes)
    assert chart.named("Service", service)["spec"]["ports"][0]["port"] == int(port)
    assert f"helm -n {NAMESPACE} test {RELEASE} --filter name={RELEASE}-test" in notes
    assert not re.search(r"<no value>|nil|\{\{", notes)


def test_what_is_only_for_a_demo_is_said(shown: Any) -> None:
    demo, production = shown("values-demo.yaml"), shown("values.yaml")
    for sentence in ("no other copy", "Not for data that matters"):
        assert sentence in demo and sentence not in production
