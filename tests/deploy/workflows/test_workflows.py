"""The workflows of GitHub Actions: actionlint, and what a linter does not know of this repository."""

from __future__ import annotations

import os
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
MAKE = re.compile(r"(?:^\s*|[;&|]\s*|\bHOME=\S+\s+|\bsudo\s+|\btimed\s+)make\s+([^\n;&|]+)", re.MULTILINE)
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
        for word in re.sub(r'"[^"]*"', '""', arguments).split()
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
        ("uses: ./.github/workflows/ci.yml", "uses: ./.github/workflows/ci.yml@main", "ci.yml@main"),
        ("${{ github.repository }}", "${{ github.repositry }}", "repositry"),
        ("timeout-minutes:", "timeout-minute:", "timeout-minute"),
        ('run: make check-tag TAG="$GITHUB_REF_NAME"', "run: make check-tag TAG=$GITHUB_REF_NAME", "SC2086"),
        ("run: make sbom", 'run: echo "${{ github.event.head_commit.message }}"', "untrusted"),
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


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of a job; one that calls another workflow has none of its own."""
    found: list[dict[str, Any]] = [] if "uses" in job else job["steps"]
    return found


def test_every_job_ends_and_every_workflow_knows_its_neighbours() -> None:
    for path in FILES:
        assert document(path)["concurrency"]["group"], path.name
    for path, name, job in jobs():
        # What a workflow of ours is called for ends as that workflow's jobs do.
        assert str(job.get("uses", "./")).startswith("./"), (path.name, name)
        assert "uses" in job or 0 < job["timeout-minutes"] <= 60, (path.name, name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_are_pinned_to_a_commit_and_say_its_version(path: Path) -> None:
    uses = [
        line.strip().removeprefix("- ")
        for line in path.read_text().splitlines()
        if "uses:" in line and "uses: ./" not in line
    ]
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
        for step in steps(job):
            if str(step.get("uses", "")).startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, (path.name, name)


def needed(jobs_of: dict[str, dict[str, Any]], name: str) -> set[str]:
    """Return the jobs that have to succeed before one starts."""
    named = jobs_of[name].get("needs", [])
    direct = {named} if isinstance(named, str) else set(named)
    return direct.union(*(needed(jobs_of, other) for other in direct))


def test_a_release_is_a_tag_whose_build_is_checked_before_it_is_published() -> None:
    release = document(FOLDER / "release.yml")
    assert release["on"] == {"push": {"tags": ["v*"]}}
    jobs_of = release["jobs"]
    assert needed(jobs_of, "publish") == {"tag", "checks", "build", "attest"}
    # Nothing is built or signed of a commit that does not pass all that main has to pass.
    assert needed(jobs_of, "build") == {"tag", "checks"}
    assert jobs_of["checks"]["uses"] == "./.github/workflows/ci.yml"
    checks = document(FOLDER / "ci.yml")
    assert "workflow_call" in checks["on"]
    assert set(checks["jobs"]) == {"lint", "test", "browser", "services", "trino", "deploy"}
    assert not any("if" in job or "continue-on-error" in job for job in checks["jobs"].values())
    assert release["concurrency"]["group"] != checks["concurrency"]["group"]
    scripts = [step["run"] for step in jobs_of["tag"]["steps"] if "run" in step]
    assert 'make check-tag TAG="$GITHUB_REF_NAME"' in scripts
    built = [step["run"] for step in jobs_of["build"]["steps"] if "run" in step]
    assert built == ["make dist", "make sbom"]
    publish = release["jobs"]["publish"]
    assert set(publish["needs"]) == {"build", "attest"}
    assert publish["environment"]["name"] == "pypi"
    [upload] = [step for step in publish["steps"] if "pypi-publish" in step["uses"]]
    # Trusted publishing: nobody keeps a password for PyPI.
    assert upload["with"] == {"attestations": True}
    assert "secrets." not in (FOLDER / "release.yml").read_text()


def test_a_tag_that_is_not_in_the_history_of_main_is_refused(tmp_path: Path) -> None:
    job = document(FOLDER / "release.yml")["jobs"]["tag"]
    # A shallow checkout knows nothing of main.
    [checkout] = [step for step in job["steps"] if str(step.get("uses")).startswith("actions/checkout@")]
    assert checkout["with"]["fetch-depth"] == 0
    [script] = [step["run"] for step in job["steps"] if "merge-base" in step.get("run", "")]

    def git(*arguments: str, where: Path = tmp_path / "upstream") -> None:
        author = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *author, "-C", str(where), *arguments], check=True, capture_output=True)

    upstream, clone = tmp_path / "upstream", tmp_path / "clone"
    upstream.mkdir()
    git("init")
    git("commit", "--allow-empty", "-m", "one")
    git("tag", "v1")
    git("commit", "--allow-empty", "-m", "two")
    git("checkout", "-b", "aside")
    git("commit", "--allow-empty", "-m", "three")
    git("tag", "v2")
    git("clone", str(upstream), str(clone), where=tmp_path)
    for tag, code in (("v1", 0), ("v2", 1)):
        git("checkout", "--detach", tag, where=clone)
        done = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=clone,
            env={"PATH": os.environ["PATH"], "GITHUB_REF_NAME": tag},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert (f"{tag} is no commit of main" in done.stdout) is bool(code)


def test_the_name_of_an_image_is_lower_case_whoever_owns_the_repository(tmp_path: Path) -> None:
    [job] = document(FOLDER / "dagster-plus.yml")["jobs"].values()
    assert "IMAGE" not in job["env"]
    [script] = [step["run"] for step in job["steps"] if "ghcr.io/" in step.get("run", "")]
    before = tmp_path / "environment"
    environment = {"PATH": os.environ["PATH"], "GITHUB_ENV": str(before)}
    subprocess.run(
        ["bash", "-e", "-c", script],
        env={**environment, "GITHUB_REPOSITORY_OWNER": "Example-Org"},
        check=True,
    )
    assert before.read_text() == "IMAGE=ghcr.io/example-org/floe-dagster-plus\n"
    names = [step.get("name") for step in job["steps"]]
    first_use = next(i for i, step in enumerate(job["steps"]) if "$IMAGE:" in step.get("run", ""))
    assert names.index("Name the image") < first_use
    assert "github.repository_owner" not in (FOLDER / "dagster-plus.yml").read_text()


def test_images_are_built_on_a_base_that_has_a_python_new_enough() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))
    builds = [
        line
        for path, _name, job in jobs()
        for step in steps(job)
        for line in step.get("run", "").splitlines()
        if re.search(r"make build-(demo|plus)-image", line)
    ]
    assert len(builds) == 2
    for line in builds:
        named = re.search(r'IMAGE_ARGS="--base-image python:(\d+)\.(\d+)-slim"', line)
        assert named and (int(named[1]), int(named[2])) >= oldest, line
    # The same as that of the image which Dagster+ Serverless builds, and as that which the message proposes.
    base = named and f"python:{named[1]}.{named[2]}-slim"
    assert f"FROM {base}\n" in (ROOT / "docker" / "dagster-plus" / "serverless.Dockerfile").read_text()
    assert f"BASE_IMAGE={base} " in (ROOT / "docker" / "dagster-demo" / "Dockerfile").read_text()


def test_the_table_of_pins_is_that_of_the_workflows() -> None:
    page = (ROOT / "docs" / "releasing.md").read_text()
    written = dict(re.findall(r"^\| `([\w-]+/[\w-]+)` \| (v[\d.]+)", page, re.MULTILINE))
    pinned = {
        action: version
        for path in FILES
        for action, version in re.findall(r"uses: ([\w/-]+)@[0-9a-f]{40} # (v[\d.]+)", path.read_text())
    }
    assert written == pinned


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


SPECIFICATIONS = (
    "openapi/polaris-management-service-1.4.1.yml",
    "openapi/iceberg-rest-catalog-1.4.1.yaml",
    "openlineage/OpenLineage.json",
)


@pytest.mark.parametrize("there", [SPECIFICATIONS[:count] for count in range(len(SPECIFICATIONS))])
@pytest.mark.parametrize("is_named", [True, False])
def test_ci_run_says_at_once_which_specifications_it_lacks(
    tmp_path: Path, there: tuple[str, ...], is_named: bool
) -> None:
    """A clone that lies alone: nothing is installed, nothing built, before that is told."""
    script = tmp_path / "clone" / ".ci" / "run"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "run", script)
    folder = tmp_path / "specs" if is_named else tmp_path / "shared" / "data"
    for name in there:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    environment = {"PATH": os.environ["PATH"], **({"FLOE_SPECS": str(folder)} if is_named else {})}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and done.stdout == ""
    assert f"there is no {folder}/{SPECIFICATIONS[len(there)]}" in done.stderr
    for source in ("github.com/apache/polaris at 1.4.1", "github.com/OpenLineage/OpenLineage"):
        assert source in done.stderr
