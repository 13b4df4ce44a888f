"""What users get wrong: a clear error, exit code 2, nothing written, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from floe_dagster.cli import main
from floe_dagster.compilation.pipeline import compile_product
from floe_dagster.home import FloeHome

FLOE = str(Path(sys.executable).with_name("floe-dagster"))


def validate(shop: Path, *arguments: str) -> tuple[int, str]:
    """Run the command in a process of its own: one that hangs must not take the tests along."""
    command = [FLOE, "validate", "--documents", str(shop), *arguments]
    done = subprocess.run(command, cwd=shop.parent, capture_output=True, text=True, timeout=120)
    output = done.stderr + done.stdout
    assert "Traceback" not in output
    return done.returncode, output


def _alias_bomb() -> bytes:
    lines = ["a0: &a0 [" + ",".join("x" * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 12)]
    return "\n".join(lines).encode()


def _merge_bomb() -> bytes:
    lines = ["a0: &a0 {k: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 4)}]}}" for n in range(1, 30)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"kind: a\nkind: b\n", "duplicate-key"),
        (b"---\na: 1\n---\nb: 2\n", "several-documents"),
        (_alias_bomb(), "too-many-aliases"),
        (_merge_bomb(), "too-many-aliases"),
        (b"kind: \xff\xfe", "wrong-encoding"),
        ("kind: FloeSpec".encode("utf-16"), "wrong-encoding"),
        (b"a: \0", "control-character"),
        (b"", "empty-document"),
        (b"just text", "not-a-mapping"),
        (b'!!python/object/apply:os.system ["touch pwned"]', "not-a-mapping"),
        (b"x: " + b"[" * 5000, "nesting-too-deep"),
        (b"x: |\n" + b"  yyyyyyyyy\n" * 200_000, "document-too-large"),
        (b"a: [1, 2\nb: 3\n", "yaml"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_document_that_cannot_be_read(shop: Path, content: bytes, code: str) -> None:
    (shop / "floe.yaml").write_bytes(content)
    exit_code, output = validate(shop)
    assert exit_code == 2 and f"[{code}" in output
    assert output.startswith("shop/floe.yaml:")
    assert not (shop.parent / "pwned").exists()


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("name", ["floe.yaml", "../manifest.yaml", "dbt_project.yml"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, _link_to_itself])
def test_something_else_in_place_of_a_file(shop: Path, name: str, make: Callable[[Path], None]) -> None:
    path = shop / name
    path.unlink()
    make(path)
    exit_code, output = validate(shop)
    assert exit_code == 2 and path.name in output


def test_a_link_out_of_the_project(shop: Path) -> None:
    (shop.parent / "manifest.yaml").unlink()
    (shop.parent / "manifest.yaml").symlink_to("/dev/zero")
    exit_code, output = validate(shop)
    assert exit_code == 2 and "[path-outside-project]" in output


def test_all_errors_of_both_documents_at_once_with_their_places(shop: Path) -> None:
    with (shop / "floe.yaml").open("a") as file:
        file.write("resources: medum\nschedule: {cron: 61 * * * *, timezone: Mars/X, enabld: true}\n")
    with (shop.parent / "manifest.yaml").open("a") as file:
        file.write("plugins: {storage: {type: s4}, computer: {type: x}}\n")
    exit_code, output = validate(shop)
    assert exit_code == 2
    for line in (
        "shop/floe.yaml:6:18: error",
        "shop/floe.yaml:6:40: error",
        "shop/floe.yaml:6:48: error: unknown field 'enabld'",
        "Did you mean 'enabled'?",
        "manifest.yaml:4:27: error: type has a value that is not allowed",
        "allowed: local, s3, minio",
        "manifest.yaml:4:32: error: unknown field 'computer'",
        "Did you mean 'compute'?",
    ):
        assert line in output, f"{line}\n\n{output}"


@pytest.mark.parametrize("presets", ["", "resource_presets: {medium: {cpu_request: 1}}\n"])
def test_a_preset_that_the_platform_does_not_have(shop: Path, presets: str) -> None:
    with (shop / "floe.yaml").open("a") as file:
        file.write("resources: medum\n")
    with (shop.parent / "manifest.yaml").open("a") as file:
        file.write(presets)
    exit_code, output = validate(shop)
    assert exit_code == 2 and "shop/floe.yaml:5:12: error" in output and "[unknown-preset]" in output
    assert ("Did you mean 'medium'?" in output) is bool(presets)


@pytest.mark.parametrize(
    ("engine", "fix"), [("trino", "runs products on duckdb"), ("duckdbb", "Did you mean 'duckdb'?")]
)
def test_a_transform_that_asks_for_another_engine(shop: Path, engine: str, fix: str) -> None:
    with (shop / "floe.yaml").open("a") as file:
        file.write(f"transforms:\n  - name: orders\n    compute: {engine}\n")
    exit_code, output = validate(shop)
    assert exit_code == 2 and "shop/floe.yaml:7:14: error" in output and "[unsupported-compute]" in output
    assert f"'orders' asks for '{engine}'" in output and fix in output


def test_an_engine_that_cannot_reach_the_catalog(shop: Path) -> None:
    with (shop.parent / "manifest.yaml").open("a") as file:
        file.write(
            "plugins:\n  compute: {type: trino, config: {host: trino.example, catalog: floe}}\n"
            "  catalog: {type: sql}\n  storage: {type: local}\n"
        )
    exit_code, output = validate(shop)
    assert exit_code == 2
    for line in (
        "manifest.yaml:6: error: trino writes the platform's catalog itself",
        "plugins.catalog.type polaris or rest",
        "manifest.yaml:7: error: trino writes the tables' files itself",
        "plugins.storage.type minio or s3",
    ):
        assert line in output, f"{line}\n\n{output}"
    assert "[unshared-catalog]" in output and "[unshared-storage]" in output


def test_a_secret_is_reported_and_never_repeated(shop: Path, home: FloeHome) -> None:
    with (shop.parent / "manifest.yaml").open("a") as file:
        file.write(
            "plugins:\n  catalog: {type: polaris, config: {uri: 'http://u:hunter22@h/', warehouse: w,\n"
            "    oauth2: {client_id: a, client_secret: hunter22}}}\npasswrod: hunter22\n"
        )
    _exit_code, output = validate(shop)
    assert output.count("[literal-secret]") == 2 and "manifest.yaml:5:42" in output
    assert "hunter22" not in output
    result = compile_product(shop, home=home)
    assert result.bundle is not None
    documents = ("compiled_artifacts.json", "manifest.json", "asset_index.json", "report.json")
    assert not any(b"hunter22" in result.bundle.read(name) for name in documents)


@pytest.mark.parametrize(
    ("manifest", "code"), [("/nowhere.yaml", "file-not-found"), ("/etc", "not-a-file"), (".", "not-a-file")]
)
def test_a_manifest_from_the_command_line_or_the_environment(
    shop: Path, manifest: str, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    exit_code, output = validate(shop, "--manifest", manifest)
    assert exit_code == 2 and f"[{code}]" in output
    monkeypatch.setenv("FLOE_MANIFEST", manifest)
    exit_code, output = validate(shop)
    assert exit_code == 2 and f"[{code}]" in output


def test_a_manifest_outside_may_be_given_but_not_named(
    shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("elsewhere") / "manifest.yaml"
    other.write_text((shop.parent / "manifest.yaml").read_text())
    assert validate(shop, "--manifest", str(other))[0] == 0
    spec = shop / "floe.yaml"
    spec.write_text(spec.read_text().replace("../manifest.yaml", str(other)))
    exit_code, output = validate(shop)
    assert exit_code == 2 and "shop/floe.yaml:4:22" in output and "[path-outside-project]" in output


def test_an_empty_manifest_option(shop: Path) -> None:
    exit_code, output = validate(shop, "--manifest=")
    assert exit_code == 2 and "is empty" in output


def test_a_home_that_cannot_be_written_is_named(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "file"))
    assert main(["compile", str(shop)]) == 2
    assert "FLOE_HOME is" in capsys.readouterr().err


def test_a_broken_product_does_not_stop_the_others(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOE_HOME", str(tmp_path / "home"))
    assert main(["compile", str(tmp_path / "nowhere"), str(shop)]) == 2
    output = capsys.readouterr()
    assert "[no-product]" in output.err and "compiled   shop" in output.out


@pytest.mark.parametrize(
    "arguments", [["show", "x"], ["show", "a.b.c"], ["show", "shop.orders", "--product-dir", "shop"]]
)
def test_a_table_that_cannot_be_shown(
    shop: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shop.parent)
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_local_dbt_packages_are_vendored_when_the_product_is_compiled(shop: Path, home: FloeHome) -> None:
    package = shop / "packages" / "helpers"
    (package / "macros").mkdir(parents=True)
    (package / "dbt_project.yml").write_text("name: helpers\nversion: 1.0.0\n")
    (package / "macros" / "seven.sql").write_text("{% macro seven() %}7{% endmacro %}\n")
    (shop / "packages.yml").write_text("packages: [{local: packages/helpers}]\n")
    manifest = shop.parent / "manifest.yaml"
    manifest.write_text(f"{manifest.read_text()}governance: {{allow: {{packages: [helpers]}}}}\n")
    (shop / "models" / "orders.sql").write_text("select {{ helpers.seven() }} as id, 'x' as status\n")
    result = compile_product(shop, home=home)
    assert result.findings == [] and result.bundle is not None
    unpacked = result.bundle.unpack(home)
    assert (unpacked.project_dir / "dbt_packages" / "helpers" / "macros" / "seven.sql").is_file()
    assert not (shop / "dbt_packages").exists()


def test_a_package_that_is_not_there_is_named(shop: Path, home: FloeHome) -> None:
    (shop / "packages.yml").write_text("packages: [{local: packages/nothing}]\n")
    result = compile_product(shop, home=home)
    assert result.exit_code == 2 and result.bundle_path is None
    assert any("nothing" in finding.message for finding in result.findings)
