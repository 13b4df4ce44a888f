"""Where a project begins, and so where `.floe` lies: with a marker, and in a plain folder without one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe_dagster.compilation.pipeline import compile_product, validate_product
from floe_dagster.home import ROOT_MARKERS, FloeHome, find_project_root

MANIFEST = """\
apiVersion: floe.dev/v1
kind: Manifest
metadata: {name: test-platform, version: 1.0.0, owner: platform@example.com}
"""
DOMAIN = MANIFEST + "scope: domain\nparent_manifest: "
ENTERPRISE = MANIFEST + "scope: enterprise\n"


def spec(manifest: str | None) -> str:
    platform = "" if manifest is None else f"platform: {{manifest: {manifest}}}\n"
    return (
        "apiVersion: floe.dev/v1\nkind: FloeSpec\n"
        f"metadata: {{name: shop, version: 1.0.0, owner: shop@example.com}}\n{platform}"
    )


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty folder that no marker stands above."""
    for folder in tmp_path.parents:
        assert not any((folder / marker).exists() for marker in ROOT_MARKERS), folder
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "outside" / "work"
    folder.mkdir()
    return folder


# The product's folder, its floe.yaml's manifest, further manifests; the root is `work` in each.
LAYOUTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "as docs/product.md has it": (
        "products/shop",
        "../../manifests/local.yaml",
        {"manifests/local.yaml": MANIFEST},
    ),
    "the manifest in the root": ("products/shop", "../../manifest.yaml", {"manifest.yaml": MANIFEST}),
    "the manifest in a folder of another name": (
        "products/shop",
        "../../platform/duck.yaml",
        {"platform/duck.yaml": MANIFEST},
    ),
    "one manifest beside the products": ("products/shop", "../local.yaml", {"products/local.yaml": MANIFEST}),
    "a manifest of the product's own": ("products/shop", "m.yaml", {"products/shop/m.yaml": MANIFEST}),
    "products in folders by domain": (
        "products/sales/shop",
        "../../../manifests/local.yaml",
        {"manifests/local.yaml": MANIFEST},
    ),
    "no folder named products": (
        "pipelines/shop",
        "../../manifests/local.yaml",
        {"manifests/local.yaml": MANIFEST},
    ),
    "products of a team": (
        "team/products/shop",
        "../../../manifests/local.yaml",
        {"manifests/local.yaml": MANIFEST},
    ),
    "one product beside its manifest": ("shop", "../manifest.yaml", {"manifest.yaml": MANIFEST}),
    "one product beside the manifests": (
        "shop",
        "../manifests/local.yaml",
        {"manifests/local.yaml": MANIFEST},
    ),
    "all in one folder": (".", "manifest.yaml", {"manifest.yaml": MANIFEST}),
    "all in one folder, with a dot": (".", "./manifest.yaml", {"manifest.yaml": MANIFEST}),
    "manifests below the product": (".", "manifests/local.yaml", {"manifests/local.yaml": MANIFEST}),
    "a domain's manifest in the product": (
        "shop",
        "domain.yaml",
        {"shop/domain.yaml": DOMAIN + "../enterprise.yaml\n", "enterprise.yaml": ENTERPRISE},
    ),
    "a domain's manifest beside the products": (
        "products/shop",
        "../domain.yaml",
        {
            "products/domain.yaml": DOMAIN + "../manifests/enterprise.yaml\n",
            "manifests/enterprise.yaml": ENTERPRISE,
        },
    ),
    "a chain of manifests": (
        "a/b/shop",
        "../../platform/domain/d.yaml",
        {"a/platform/domain/d.yaml": DOMAIN + "../../../e.yaml\n", "e.yaml": ENTERPRISE},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_marker_the_root_holds_the_product_and_its_manifests(work: Path, layout: str) -> None:
    folder, manifest, manifests = LAYOUTS[layout]
    product = work / folder
    write(work, {f"{folder}/floe.yaml": spec(manifest), f"{folder}/dbt_project.yml": "name: shop\n"})
    write(work, manifests)
    assert find_project_root(product) == work
    assert FloeHome.locate(product, {}).path == work / ".floe"
    found = validate_product(product, documents_only=True, environ={})
    assert [finding.to_text() for finding in found.findings] == []
    # `floe-dagster platform check --manifest …` looks at the catalog that the runs write.
    named = (product / manifest).resolve()
    assert find_project_root(named) == work
    # Nothing above can take the root away, nor can what a command left behind.
    write(
        work.parent, {"manifest.yaml": MANIFEST, "manifests/x.yaml": MANIFEST, "other/floe.yaml": spec(None)}
    )
    (product.parent / ".floe").mkdir()
    assert find_project_root(product) == work and find_project_root(named) == work


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "broken",
    [
        lambda text: text + "schedule: {cron: [\n",
        lambda text: text + "\tx: 1\n",
        lambda text: text.replace("kind: FloeSpec", "kind: FloeSpec: oops"),
        lambda text: (
            text.replace("platform: {manifest: ", "platform:\n  manifest: '").replace("}\n", "'\n", 2) + "]\n"
        ),
    ],
)
def test_the_root_stays_while_somebody_breaks_floe_yaml(
    work: Path, layout: str, broken: Callable[[str], str]
) -> None:
    folder, manifest, manifests = LAYOUTS[layout]
    write(work, {f"{folder}/floe.yaml": broken(spec(manifest)), **manifests})
    assert find_project_root(work / folder) == work


@pytest.mark.parametrize(
    ("folder", "manifest"),
    [
        ("products/shop", "../../manifests/missing.yaml"),
        ("products/shop", "../../../manifests/one-too-many.yaml"),
        ("products/shop", "../../../../../../../../../../etc/passwd"),
        ("products/shop", "/etc/passwd"),
        ("products/shop", "''"),
        ("products/shop", "[a]"),
        ("products/shop", None),
        ("shop", "../missing.yaml"),
        ("shop", "../../one-too-many.yaml"),
        ("shop", "/etc/passwd"),
        ("shop", None),
        (".", "missing.yaml"),
        (".", "manifests/missing.yaml"),
    ],
)
def test_a_mistake_in_floe_yaml_puts_no_folder_elsewhere(
    work: Path, folder: str, manifest: str | None
) -> None:
    write(work, {f"{folder}/floe.yaml": spec(manifest), f"{folder}/dbt_project.yml": "name: shop\n"})
    assert find_project_root(work / folder) == work
    result = compile_product(work / folder, environ={})
    assert result.exit_code == 2
    assert set(work.parent.rglob(".floe")) <= {work / ".floe"}


def test_a_root_that_is_guessed_wrongly_is_named_with_what_to_do(work: Path) -> None:
    write(work, {"shop/floe.yaml": spec("/elsewhere/manifest.yaml"), "shop/dbt_project.yml": "name: shop\n"})
    (finding,) = validate_product(work / "shop", documents_only=True, environ={}).findings
    assert finding.code == "path-outside-project"
    assert finding.fix and f"so {work} is taken" in finding.fix and "workspace.yaml" in finding.fix
    write(work, {"workspace.yaml": "load_from: []\n"})
    (finding,) = validate_product(work / "shop", documents_only=True, environ={}).findings
    assert finding.fix and "workspace.yaml" not in finding.fix


@pytest.mark.parametrize("marker", ROOT_MARKERS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_marker_wins_and_its_project_is_not_left(work: Path, layout: str, marker: str) -> None:
    """A product in a repository reaches nothing outside of it, whatever it names."""
    folder, manifest, manifests = LAYOUTS[layout]
    write(work, {f"{folder}/floe.yaml": spec(manifest), f"{folder}/dbt_project.yml": "name: shop\n"})
    write(work, manifests)
    (work / folder / marker).mkdir()
    assert find_project_root(work / folder) == (work / folder)
    leaves = any((work / name).resolve().parent not in inside(work / folder) for name in manifests)
    codes = [
        finding.code for finding in validate_product(work / folder, documents_only=True, environ={}).findings
    ]
    assert codes == (["path-outside-project"] if leaves else [])
    # A marker further up counts for everything below it.
    (work / folder / marker).rmdir()
    (work.parent / marker).mkdir()
    assert find_project_root(work / folder) == work.parent


def inside(folder: Path) -> list[Path]:
    return [folder.resolve(), *(path for path in folder.resolve().rglob("*") if path.is_dir())]


def test_floe_home_is_taken_as_it_is(work: Path) -> None:
    write(work, {"products/shop/floe.yaml": spec("../../manifests/local.yaml")})
    product = work / "products" / "shop"
    assert FloeHome.locate(product, {"FLOE_HOME": str(work / "else")}).path == work / "else"
    assert FloeHome.locate(product, {"FLOE_HOME": " "}).path == work / ".floe"


def test_the_root_is_the_same_from_every_working_directory(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        work, {"products/shop/floe.yaml": spec("../../m.yaml"), "m.yaml": MANIFEST, "products/shop/x/y": ""}
    )
    for folder in (work.parent, work, work / "products", work / "products" / "shop", Path("/")):
        monkeypatch.chdir(folder)
        assert find_project_root(Path(os.path.relpath(work / "products" / "shop"))) == work
    monkeypatch.chdir(work / "products" / "shop")
    assert find_project_root(Path()) == work


def test_a_product_that_is_a_link_belongs_where_the_link_stands(work: Path) -> None:
    write(work, {"src/shop/floe.yaml": spec("../../manifests/local.yaml"), "manifests/local.yaml": MANIFEST})
    write(work, {"src/shop/dbt_project.yml": "name: shop\n"})
    (work / "products").mkdir()
    link = work / "products" / "shop"
    link.symlink_to("../src/shop")
    assert find_project_root(link) == work
    assert validate_product(link, documents_only=True, environ={}).findings == []
    # A shell in that folder names the real one.
    assert find_project_root(link.resolve()) == work


def test_a_link_to_a_product_outside_reads_nothing_there(work: Path) -> None:
    write(
        work.parent,
        {"shop/floe.yaml": spec("../../manifests/local.yaml"), "shop/dbt_project.yml": "name: shop\n"},
    )
    write(work, {"manifests/local.yaml": MANIFEST})
    (work / "products").mkdir()
    link = work / "products" / "shop"
    link.symlink_to("../../shop")
    assert find_project_root(link) == work
    codes = {finding.code for finding in validate_product(link, documents_only=True, environ={}).findings}
    assert codes == {"path-outside-project"}


@pytest.mark.skipif(not hasattr(os, "chroot") or os.geteuid() != 0, reason="only root may change its root")
@pytest.mark.parametrize(
    ("folder", "manifest", "root"),
    [
        ("/", "manifest.yaml", "/"),
        ("/shop", "manifest.yaml", "/shop"),
        ("/shop", "../manifest.yaml", "/"),
        ("/products/shop", "../../manifests/local.yaml", "/"),
        ("/srv/dbt/shop", "../../../manifests/local.yaml", "/srv/dbt"),
    ],
)
def test_a_product_at_the_root_of_the_file_system(work: Path, folder: str, manifest: str, root: str) -> None:
    write(work, {f"{folder.strip('/') or '.'}/floe.yaml": spec(manifest)})
    write(work, {os.path.normpath(f"{folder}/{manifest}").lstrip("/"): MANIFEST})
    read, written = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            import yaml  # noqa: F401  (what is imported late does not lie below the new root)

            os.chroot(work)
            os.write(written, str(find_project_root(Path(folder))).encode())
        finally:
            os._exit(0)
    os.close(written)
    os.waitpid(child, 0)
    with os.fdopen(read) as told:
        assert told.read() == root


NAMES = st.sampled_from(["products", "manifests", "shop", "a", "b"])


@pytest.mark.skipif(sys.platform == "win32", reason="paths")
@given(product=st.lists(NAMES, max_size=4), manifest=st.lists(NAMES, max_size=3))
def test_wherever_both_lie_the_manifest_is_inside_and_home_is_no_deeper(
    tmp_path_factory: pytest.TempPathFactory, product: list[str], manifest: list[str]
) -> None:
    work = tmp_path_factory.mktemp("work") / "outside" / "work"
    folder, file = work.joinpath(*product), work.joinpath(*manifest, "m.yaml")
    folder.mkdir(parents=True)
    write(file.parent, {"m.yaml": MANIFEST})
    write(folder, {"floe.yaml": spec(os.path.relpath(file, folder)), "dbt_project.yml": "name: shop\n"})
    root = find_project_root(folder)
    assert root.is_relative_to(work) and folder.is_relative_to(root) and file.is_relative_to(root)
    assert validate_product(folder, documents_only=True, environ={}).findings == []
