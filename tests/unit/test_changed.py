"""Which tests `make check` runs."""

from __future__ import annotations

from pathlib import Path

from tests.changed import files_that_test, imported, module_of


def test_tests_that_import_what_changed_are_run(tmp_path: Path) -> None:
    for name, source in {
        "unit/test_one.py": "from package.inner import thing",
        "unit/test_deep.py": "def test():\n    import package.other\n",
        "unit/test_names.py": "from package import inner",
        "contract/test_rest.py": "import package.elsewhere",
        "integration/test_slow.py": "import package.inner",
    }.items():
        (tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tests" / name).write_text(source)
    assert files_that_test(["package/inner.py"], tmp_path) == [
        "tests/unit/test_names.py",
        "tests/unit/test_one.py",
    ]
    assert files_that_test(["package/other.py"], tmp_path) == ["tests/unit/test_deep.py"]
    assert files_that_test(["tests/contract/test_rest.py", "README.md"], tmp_path) == [
        "tests/contract/test_rest.py"
    ]
    assert files_that_test(["package/gone.py"], tmp_path) == []


def test_modules_are_named_as_they_are_imported() -> None:
    assert module_of("package/inner/__init__.py") == "package.inner"
    assert module_of("docs/page.md") is None
    assert imported("from . import near\nfrom package import a, b") == {"package", "package.a", "package.b"}
