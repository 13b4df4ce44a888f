"""The workflows of GitHub Actions: actionlint, and what a linter does not know of this repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.tools import go_tool

FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
ACTIONLINT = ("github.com/rhysd/actionlint/cmd/actionlint", "v1.7.12")
MAKE = re.compile(r"(?:^|[;&|]\s*|\bHOME=\S+\s+|\bsudo\s+)make\s+([^\n;&|]+)", re.MULTILINE)
PINNED = re.compile(r"uses: \S+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
WRITES = {
    ("release.yml", "attest"): {"id-token", "attestations"},
    ("release.yml", "publish"): {"id-token"},
    ("release.yml", "announce"): {"contents"},
    ("dagster-plus.yml", "deploy"): {"packages"},
}
"""The jobs that may write, and what."""


def document(path: Path) -> dict[str, Any]:
    # YAML 1.1 reads the key `on` as true.
    loaded: dict[Any, Any] = yaml.safe_load(path.read_text())
    return {"on" if key is True else str(key): value for key, value in loaded.items()}


def jobs() -> Iterator[tuple[Path, str, dict[str, Any]]]:
    for path in FILES:
        for name, job in document(path)["jobs"].items():
            yield path, name, job


def made_targets(text: str) -> set[str]:
    """Return the targets of `make` that a script asks for."""
    return {
        word
        for arguments in MAKE.findall(text)
        for word in arguments.split()
        if "=" not in word and not word.startswith("-") and "$" not in word
    }


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run actionlint over a folder's workflows."""
    shellcheck = shutil.which("shellcheck") or ""
    return subprocess.run(
        [
            str(go_tool(*ACTIONLINT)),
            "-no-color",
            f"-shellcheck={shellcheck}",
            "-pyflakes=",
            *sorted(map(str, folder.glob("*.yml"))),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_workflows_are_there() -> None:
    assert {path.name for path in FILES} == {"ci.yml", "dagster-plus.yml", "release.yml"}


def test_actionlint_finds_nothing() -> None:
    if not shutil.which("shellcheck"):
        pytest.fail(
            "there is no shellcheck, which checks the scripts of the steps: apt-get install shellcheck"
        )
    done = lint(FOLDER)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("found", "planted", "said"),
    [
        ("runs-on: ubuntu-24.04", "runs-on: ubuntu-24.4", 'label "ubuntu-24.4" is unknown'),
        ("needs: build", "needs: biuld", "biuld"),
        ("${{ github.repository }}", "${{ github.repositry }}", "repositry"),
        ("timeout-minutes:", "timeout-minute:", "timeout-minute"),
        ('run: make check-tag TAG="$GITHUB_REF_NAME"', "run: make check-tag TAG=$GITHUB_REF_NAME", "SC2086"),
        ("run: make lint", 'run: echo "${{ github.event.head_commit.message }}"', "untrusted"),
    ],
)
def test_actionlint_finds_a_planted_mistake(tmp_path: Path, found: str, planted: str, said: str) -> None:
    text = (FOLDER / "release.yml").read_text()
    assert found in text
    (tmp_path / "release.yml").write_text(text.replace(found, planted))
    done = lint(tmp_path)
    assert done.returncode == 1 and said in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_make_target_exists(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    known = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    asked = made_targets(path.read_text().replace("run: ", "run:\n"))
    assert asked and asked <= known, asked - known


def test_continuous_integration_checks_what_ci_run_checks() -> None:
    script = "\n".join(
        line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.lstrip().startswith("#")
    )
    local = made_targets(script) - {"setup"}
    assert local
    missing = local - made_targets((FOLDER / "ci.yml").read_text().replace("run: ", "run:\n"))
    assert not missing, f".ci/run makes {missing}, ci.yml does not"


def test_every_supported_python_is_tested_and_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [
        found[1]
        for classifier in project["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
    ]
    matrix = document(FOLDER / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert matrix == declared
    assert project["requires-python"] == f">={declared[0]}"


def test_no_workflow_runs_strangers_code_with_the_repositorys_rights() -> None:
    for path in FILES:
        assert not {"pull_request_target", "workflow_run"} & set(document(path)["on"])
    for path, name, job in jobs():
        secrets = "secrets." in yaml.safe_dump(job)
        if secrets and "pull_request" in document(path)["on"]:
            assert "head.repo.full_name == github.repository" in str(job.get("if")), (path.name, name)


def test_every_job_has_no_more_rights_than_it_needs() -> None:
    for path, name, job in jobs():
        of_all = document(path)["permissions"]
        assert of_all in ({}, {"contents": "read"}), path.name
        rights = job.get("permissions", of_all)
        writes = {right for right, level in rights.items() if level == "write"}
        assert writes == WRITES.get((path.name, name), set()), (path.name, name)
        assert all(level in ("read", "write") for level in rights.values())


def test_every_job_ends_and_every_workflow_knows_its_neighbours() -> None:
    for path in FILES:
        assert document(path)["concurrency"]["group"], path.name
    for path, name, job in jobs():
        assert 0 < job["timeout-minutes"] <= 60, (path.name, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_and_say_its_version(path: Path) -> None:
    uses = [line.strip().removeprefix("- ") for line in path.read_text().splitlines() if "uses:" in line]
    assert uses
    for line in uses:
        assert PINNED.search(line), line


def test_one_action_has_one_pin() -> None:
    pins: dict[str, set[str]] = {}
    for path in FILES:
        for action, commit in re.findall(r"uses: (\S+)@([0-9a-f]{40})", path.read_text()):
            pins.setdefault(action, set()).add(commit)
    assert pins and all(len(commits) == 1 for commits in pins.values()), pins


def test_no_checkout_leaves_its_token_behind() -> None:
    for path, name, job in jobs():
        for step in job["steps"]:
            if str(step.get("uses", "")).startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, (path.name, name)


def test_a_release_is_a_tag_whose_build_is_checked_before_it_is_published() -> None:
    release = document(FOLDER / "release.yml")
    assert release["on"] == {"push": {"tags": ["v*"]}}
    build = release["jobs"]["build"]
    scripts = [step["run"] for step in build["steps"] if "run" in step]
    assert scripts[0] == 'make check-tag TAG="$GITHUB_REF_NAME"'
    assert "make test" in scripts and "make sbom" in scripts
    publish = release["jobs"]["publish"]
    assert set(publish["needs"]) == {"build", "attest"}
    assert publish["environment"]["name"] == "pypi"
    [upload] = [step for step in publish["steps"] if "pypi-publish" in step["uses"]]
    # Trusted publishing: nobody keeps a password for PyPI.
    assert upload["with"] == {"attestations": True}
    assert "secrets." not in (FOLDER / "release.yml").read_text()


def test_a_tag_that_is_not_the_version_is_refused() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for tag, code in ((f"v{version}", 0), (version, 1), ("v99.0.0", 1), (f"v{version}rc1", 1), ("", 2)):
        done = subprocess.run(
            ["make", "--no-print-directory", "check-tag", f"TAG={tag}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert (done.returncode == 0) is (code == 0), (tag, done.stdout + done.stderr)
        if code == 1:
            assert f"v{version}" in done.stderr and tag in done.stderr


def test_the_specifications_are_those_of_the_locked_versions() -> None:
    checkouts = [
        step["with"]
        for step in document(FOLDER / "ci.yml")["jobs"]["services"]["steps"]
        if step.get("with", {}).get("repository")
    ]
    refs = {entry["repository"]: entry["ref"] for entry in checkouts}
    locked = re.search(r"^openlineage-python==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert locked and refs["OpenLineage/OpenLineage"] == locked[1]
    assert refs["apache/polaris"] == "apache-polaris-1.4.1"
