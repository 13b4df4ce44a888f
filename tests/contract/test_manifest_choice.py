"""Which manifest counts, which products may use it, and what a product cannot bring itself."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from floe_dagster import load_product_definitions
from floe_dagster.cli import main
from floe_dagster.compilation.manifest_choice import chain_digest
from floe_dagster.compilation.pipeline import compile_product, validate_product
from floe_dagster.compilation.result import CompileResult
from floe_dagster.home import FloeHome
from tests.conftest import MANIFEST

LAX = MANIFEST.replace("test-platform", "lax") + 'governance: {policy_enforcement_level: "off"}\n'


@pytest.fixture
def chain(shop: Path) -> Path:
    """The platform's manifest, which inherits from the enterprise's."""
    manifest = shop.parent / "manifest.yaml"
    (shop.parent / "enterprise.yaml").write_text(
        MANIFEST.replace("test-platform", "enterprise") + "scope: enterprise\n"
    )
    manifest.write_text(MANIFEST + "scope: domain\nparent_manifest: enterprise.yaml\n")
    return manifest


def bring_own(shop: Path, named: str = "lax.yaml") -> None:
    (shop / "lax.yaml").write_text(LAX)
    spec = shop / "floe.yaml"
    spec.write_text(spec.read_text().replace("../manifest.yaml", named))


def digest_of(*files: Path) -> str:
    return chain_digest(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


def looked_at(shop: Path, **environ: str) -> CompileResult:
    return validate_product(shop, documents_only=True, environ=environ)


def codes(result: CompileResult) -> list[str]:
    return [finding.code for finding in result.findings if finding.severity == "error"]


def test_a_product_brings_no_manifest_where_the_platform_has_chosen_one(chain: Path, shop: Path) -> None:
    pin = digest_of(chain, chain.parent / "enterprise.yaml")
    bring_own(shop)
    assert codes(looked_at(shop)) == []
    for environ in (
        {"FLOE_MANIFEST": str(chain)},
        {"FLOE_MANIFEST": str(chain), "FLOE_MANIFEST_SHA256": pin},
    ):
        result = looked_at(shop, **environ)
        (finding,) = [each for each in result.findings if each.severity == "error"]
        assert (finding.code, finding.file, finding.line) == ("own-manifest", "shop/floe.yaml", 4)
        assert finding.found == "shop/lax.yaml" and "FLOE_MANIFEST" in finding.message and finding.fix
        assert result.exit_code == 2
    assert codes(looked_at(shop, FLOE_MANIFEST_SHA256=pin)) == ["own-manifest", "manifest-not-pinned"]
    # The argument of a location is written by the product, too.
    spec = shop / "floe.yaml"
    spec.write_text(spec.read_text().replace("lax.yaml", "../manifest.yaml"))
    given = validate_product(
        shop, manifest=shop / "lax.yaml", documents_only=True, environ={"FLOE_MANIFEST": str(chain)}
    )
    assert codes(given) == ["own-manifest"]
    # Chosen by the platform is chosen, wherever the file lies.
    assert codes(looked_at(shop, FLOE_MANIFEST=str(shop / "lax.yaml"))) == []


@pytest.mark.parametrize("named", ["lax.yaml", "./lax.yaml", "../shop/lax.yaml", "models/../lax.yaml"])
def test_however_the_path_is_written_it_is_the_products_own(chain: Path, shop: Path, named: str) -> None:
    bring_own(shop, named)
    assert codes(looked_at(shop, FLOE_MANIFEST=str(chain))) == ["own-manifest"]


def test_a_pin_holds_for_the_manifest_and_its_parents(chain: Path, shop: Path, home: FloeHome) -> None:
    enterprise = chain.parent / "enterprise.yaml"
    pin = digest_of(chain, enterprise)
    for text in (pin, pin.removeprefix("sha256:").upper(), f"{'0' * 64}, {pin}"):
        assert codes(looked_at(shop, FLOE_MANIFEST_SHA256=text)) == []
    environ = {"FLOE_MANIFEST_SHA256": pin}
    assert compile_product(shop, home=home, environ=environ).bundle_path is not None
    assert compile_product(shop, home=home, environ=environ).unchanged
    # What is compiled already is not allowed any more when the pin changes.
    renewed = compile_product(shop, home=home, environ={"FLOE_MANIFEST_SHA256": "0" * 64})
    assert codes(renewed) == ["manifest-not-pinned"] and renewed.bundle_path is None
    assert codes(compile_product(shop, home=home, environ={}, manifest_sha256="0" * 64)) == [
        "manifest-not-pinned"
    ]
    enterprise.write_text(enterprise.read_text() + "governance: {policy_enforcement_level: warn}\n")
    (finding,) = looked_at(shop, **environ).findings
    assert (finding.code, finding.file, finding.line) == ("manifest-not-pinned", "manifest.yaml", 1)
    assert digest_of(chain, enterprise) in str(finding.found) and "enterprise.yaml" in str(finding.found)
    assert finding.allowed == pin and "floe-dagster platform digest" in str(finding.fix)


@pytest.mark.parametrize("text", ["latest", "sha256:12", "0" * 63, f"{'0' * 64},x"])
def test_a_pin_that_is_no_digest_allows_nothing(chain: Path, shop: Path, text: str) -> None:
    assert codes(looked_at(shop, FLOE_MANIFEST_SHA256=text)) == ["manifest-pin"]


def test_a_location_serves_nothing_that_was_compiled_with_another_manifest(
    chain: Path,
    shop: Path,
    home: FloeHome,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pin = digest_of(chain, chain.parent / "enterprise.yaml")
    monkeypatch.setenv("FLOE_HOME", str(home.path))
    assert main(["compile", str(shop)]) == 0

    def served(**arguments: str) -> bool:
        graph = load_product_definitions(shop, **arguments).resolve_asset_graph()
        return any(key.path[-1] == "orders" for key in graph.get_all_asset_keys())

    assert served() and served(manifest_sha256=pin)
    with caplog.at_level(logging.WARNING, "floe_dagster"):
        assert not served(manifest_sha256="0" * 64)
    assert "manifest_sha256 does not pin" in caplog.text
    monkeypatch.setenv("FLOE_MANIFEST_SHA256", "0" * 64)
    assert not served(manifest_sha256=pin)


def test_commands_print_the_digest_and_which_manifest_counts(
    chain: Path, shop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pin = digest_of(chain, chain.parent / "enterprise.yaml")
    assert main(["platform", "digest", "--manifest", str(chain)]) == 0
    assert capsys.readouterr().out == f"{pin}\n"
    (shop.parent / "other.yaml").write_text(LAX)
    monkeypatch.setenv("FLOE_MANIFEST", str(chain))
    monkeypatch.setenv("FLOE_MANIFEST_SHA256", pin)
    spec = shop / "floe.yaml"
    spec.write_text(spec.read_text().replace("../manifest.yaml", "../other.yaml"))
    assert main(["explain", str(shop)]) == 0
    said = capsys.readouterr().out
    assert "manifest manifest.yaml, which FLOE_MANIFEST names, in place of ../other.yaml" in said
    assert f"{pin}; pinned by FLOE_MANIFEST_SHA256" in said
    assert main(["explain", "--format", "json", str(shop)]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["manifest"] == {
        "file": "manifest.yaml",
        "decided_by": "FLOE_MANIFEST",
        "digest": pin,
        "pinned_by": ["FLOE_MANIFEST_SHA256"],
        "replaces": "../other.yaml",
    }
