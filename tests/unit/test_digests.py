"""A digest is told from what is none; a name for a path is harmless, whatever the path."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe_dagster.digests import digest_of, digits_of, digits_of_file, is_digest, name_for, version_of
from floe_dagster.home import FloeHome

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@given(st.binary())
def test_a_digest_is_one_and_names_a_file(content: bytes) -> None:
    digest = digest_of(content)
    assert is_digest(digest) and version_of(digest) == digits_of(content)
    assert FloeHome(Path("/h")).bundle_path("shop", digest) == Path(f"/h/state/shop/{digits_of(content)}.zip")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        EMPTY,
        f"md5:{EMPTY}",
        f"sha256:{EMPTY.upper()}",
        f"sha256:{EMPTY}\n",
        f"sha256:{EMPTY}0",
        f"sha256:{EMPTY[:-1]}",
        f" sha256:{EMPTY}",
        "sha256:../../../tmp/x",
        f"sha256:{'g' * 64}",
    ],
)
def test_what_is_no_digest(text: str) -> None:
    assert not is_digest(text)


@given(st.text(st.characters(exclude_categories=[])))
def test_a_name_is_one_for_any_path(text: str) -> None:
    try:
        name = name_for(text)
    except UnicodeEncodeError:  # half a character, as no path of Python has
        assert any("\ud800" <= sign < "\udc80" or "\udcff" < sign <= "\udfff" for sign in text)
        return
    assert len(name) == 32 and set(name) <= set("0123456789abcdef")


def test_content_and_file_agree(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert digits_of_file(file) == digits_of(b"") == EMPTY
