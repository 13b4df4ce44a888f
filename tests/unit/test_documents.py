"""Reading YAML with positions."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from floe_dagster.compilation.documents import MAX_BYTES, Document, read_document
from floe_dagster.findings import InputError
from floe_dagster.named_manifests import lenient_yaml


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "floe.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def codes(tmp_path: Path, content: str | bytes) -> list[str]:
    with pytest.raises(InputError) as error:
        read_document(write(tmp_path, content), root=tmp_path)
    assert all(finding.fix and finding.file == "floe.yaml" for finding in error.value.findings)
    return [finding.code for finding in error.value.findings]


def test_values_and_keys_have_their_positions(tmp_path: Path) -> None:
    document = read_document(write(tmp_path, "kind: FloeSpec\nmetadata:\n  name: shop\n"), root=tmp_path)
    assert document.position(("metadata", "name")) == (3, 9)
    assert document.position(("metadata", "name"), key=True) == (3, 3)
    assert document.position(("metadata", "absent")) == (3, 3)


def test_words_that_yaml_1_1_takes_for_booleans_stay_words(tmp_path: Path) -> None:
    text = "level: off\nother: no\nyes: on\nday: 2024-01-01\nflag: true\nmode: 0o17\n"
    assert read_document(write(tmp_path, text), root=tmp_path).data == {
        "level": "off",
        "other": "no",
        "yes": "on",
        "day": "2024-01-01",
        "flag": True,
        "mode": 15,
    }


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("a: 1\na: 2\n", "duplicate-key"),
        ("a: 1\n---\nb: 2\n", "several-documents"),
        ("a: [1\n", "yaml-syntax"),
        ("", "empty-document"),
        ("- 1\n", "not-a-mapping"),
        ("1: x\n", "key-not-text"),
        ("a: !!python/object:os.system x\n", "yaml-tag"),
        ("a: .nan\n", "number-not-finite"),
        ("a: " + "9" * 40 + "\n", "number-too-large"),
        ("a: &x [*x]\n", "recursive-alias"),
        ("a: 1".encode("utf-16"), "wrong-encoding"),
        (b"a: \xe4\n", "wrong-encoding"),
        ("a: \x00\n", "control-character"),
        ("a: " + "[" * 200 + "]" * 200, "nesting-too-deep"),
        ("a: " + "x" * MAX_BYTES, "document-too-large"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: str | bytes, code: str) -> None:
    assert codes(tmp_path, content) == [code]


def test_every_duplicate_is_reported_at_once(tmp_path: Path) -> None:
    assert codes(tmp_path, "a: 1\na: 2\nb: {c: 1, c: 2}\n") == ["duplicate-key", "duplicate-key"]


def test_an_alias_bomb_is_bounded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    begun = time.monotonic()
    assert codes(tmp_path, "\n".join(lines)) == ["too-many-aliases"]
    assert time.monotonic() - begun < 5


def test_files_that_are_none(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "none.yaml", "file-not-found"), (tmp_path, "not-a-file")):
        with pytest.raises(InputError) as error:
            read_document(path, root=tmp_path)
        assert error.value.findings[0].code == code
    loop = tmp_path / "loop.yaml"
    os.symlink("loop.yaml", loop)
    with pytest.raises(InputError) as error:
        read_document(loop, root=tmp_path)
    assert error.value.findings[0].code == "symlink-loop"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_content_is_a_document_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    try:
        document = read_document(path, root=folder)
    except InputError as error:
        assert error.findings
    else:
        assert isinstance(document, Document) and isinstance(document.data, dict)


def test_merge_keys_are_what_yaml_says_they_are(tmp_path: Path) -> None:
    """https://yaml.org/type/merge.html: a key of its own stays, of several mappings the first that has a key counts."""
    path = tmp_path / "floe.yaml"
    path.write_text(
        "small: &small {cpu: 1, memory: 1Gi}\n"
        "other: &other {cpu: 2, limit: {cpu: 3}}\n"
        "large:\n  <<: [*small, *other]\n  memory: 4Gi\n"
        'quoted: {"<<": 1}\n'
    )
    document = read_document(path, root=tmp_path)
    assert document.data["large"] == {"memory": "4Gi", "cpu": 1, "limit": {"cpu": 3}}
    assert document.data["quoted"] == {"<<": 1}
    assert document.position(("large", "limit", "cpu")) == (2, 37)
    assert document.position(("large", "cpu"), key=True) == (1, 16)
    # Whoever only looks for a product's manifest sees the same.
    assert lenient_yaml(path)["large"] == {"memory": "4Gi", "cpu": "1", "limit": {"cpu": "3"}}
    for text in ("a: {<<: 1}\n", "a: &a {<<: *a}\n", "a: {<<: [[]]}\n"):
        path.write_text(text)
        with pytest.raises(InputError):
            read_document(path, root=tmp_path)
