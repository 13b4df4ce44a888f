"""Partition fields, sort fields and references to secrets, read from text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from floe_dagster.credentials import MissingCredentialError, environment_name, kubernetes_references, resolve
from floe_dagster.schemas.base import SecretReference
from floe_dagster.schemas.table_layout import PartitionField, SortField

NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True)
ANY_NAME = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@given(NAMES, st.sampled_from(["year", "month", "day", "hour"]), st.text(" ", max_size=3))
def test_a_transform_of_a_column(column: str, transform: str, space: str) -> None:
    field = PartitionField.parse(f"{transform}{space}({space}{column}{space})")
    assert field == PartitionField(column, transform) and field.name == f"{column}_{transform}"


@given(ANY_NAME, st.sampled_from(["bucket", "truncate"]), st.integers(1, 10_000))
def test_a_transform_with_a_width_of_any_column(column: str, transform: str, width: int) -> None:
    assert PartitionField.parse(f"{transform}({width}, {quoted(column)})") == PartitionField(
        column, transform, width
    )


@given(ANY_NAME)
def test_a_column_of_any_name_by_itself(column: str) -> None:
    assert PartitionField.parse(quoted(column)) == PartitionField(column)
    assert SortField.parse(quoted(column)) == SortField(column)


@given(
    NAMES,
    st.sampled_from(["", " asc", " desc", " DESC"]),
    st.sampled_from(["", " nulls first", " NULLS LAST"]),
)
def test_a_sort_field(column: str, direction: str, nulls: str) -> None:
    field = SortField.parse(column + direction + nulls)
    descending = direction.lower() == " desc"
    assert (field.column, field.descending) == (column, descending)
    assert field.nulls_first is ("first" in nulls if nulls else not descending)


@given(st.text(max_size=30))
def test_other_text_is_refused_with_words(text: str) -> None:
    for parse in (PartitionField.parse, SortField.parse):
        try:
            parse(text)
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "day()",
        "day(a, b)",
        "bucket(0, a)",
        "day(3, a)",
        "bucket(a)",
        "a b",
        "day(a",
        "week(a)",
        "a; drop",
    ],
)
def test_what_is_no_partition_field(text: str) -> None:
    with pytest.raises(ValueError, match=r"partition|must look like"):
        PartitionField.parse(text)


@pytest.mark.parametrize(
    ("value", "environ", "expected"),
    [
        (None, {}, None),
        ("plain", {}, "plain"),
        ("${A}", {"A": "x"}, "x"),
        ({"env": "A"}, {"A": "x"}, "x"),
        ({"secret": "s", "key": "k", "env": "A"}, {"A": "x"}, "x"),
    ],
)
def test_references_are_resolved(value: object, environ: dict[str, str], expected: str | None) -> None:
    assert resolve(value, "field", environ) == expected


@pytest.mark.parametrize("environ", [{}, {"A": ""}])
def test_a_reference_to_nothing_names_field_and_variable(environ: dict[str, str]) -> None:
    with pytest.raises(
        MissingCredentialError, match=r"^field refers to the environment variable A, which is not set"
    ):
        resolve("${A}", "field", environ)
    with pytest.raises(MissingCredentialError, match="key 'k' of the Kubernetes Secret 's'"):
        resolve({"secret": "s", "key": "k", "env": "A"}, "field", environ)


def test_a_kubernetes_secret_has_a_variable_of_its_own() -> None:
    reference = SecretReference.parse({"secret": "polaris-credentials", "key": "client.secret"})
    assert reference["env"] == "FLOE_SECRET_POLARIS_CREDENTIALS_CLIENT_SECRET"
    assert environment_name(reference) == reference["env"]
    nested = {"oauth2": {"client_secret": reference}, "list": [reference], "other": {"env": "B"}}
    found = ("FLOE_SECRET_POLARIS_CREDENTIALS_CLIENT_SECRET", "polaris-credentials", "client.secret")
    assert list(kubernetes_references(nested)) == [found, found]
