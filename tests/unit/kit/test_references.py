"""The one parser of names and version references."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.references import (
    InvalidReference,
    VersionReference,
    parse_alias,
    parse_label,
    parse_name,
    parse_version_reference,
)

PART = st.from_regex(r"[A-Za-z0-9_-]{1,63}", fullmatch=True)
ALIAS = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,62}", fullmatch=True)
LABEL = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}", fullmatch=True).filter(
    lambda text: not text.isdigit()
)
NAME = st.tuples(PART, PART, PART).map(".".join)


@given(NAME, st.integers(1, 2**63 - 1) | st.none(), ALIAS | LABEL, st.booleans())
def test_what_is_written_is_read_back(model: str, number: int | None, alias: str, prefixed: bool) -> None:
    reference = VersionReference(model, number=number, alias=None if number else alias)
    text = ("models:/" if prefixed else "") + str(reference)
    assert parse_version_reference(text) == reference


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "1 parts"),
        ("iris", "catalog.schema.name"),
        ("a.b", "2 parts"),
        ("a.b.c.d", "4 parts"),
        ("a..c", "'' in 'a..c'"),
        ("a.b.c/", "not a version number"),
        ("a.b.c/0", "not a version number"),
        ("a.b.c/01", "not a version number"),
        ("a.b.c/x", "not a version number"),
        ("a.b.c/9223372036854775808", "not a version number"),
        ("a.b.c@", "not an alias"),
        ("a.b.c@-1st", "not an alias or label"),
        ("a.b.c@12", "not an alias or label"),
        ("a.b.c@1..é", "not an alias or label"),
        ("a.b.c@x/1", "not an alias"),
        ("a.b.ü", "not a name"),
        ("a.b.c\n", "not a name"),
        ("models:/a.b", "2 parts"),
        ("x" * 500, "1 parts"),
    ],
)
def test_malformed_references_say_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(InvalidReference, match=".") as caught:
        parse_version_reference(text)
    assert says in str(caught.value)
    assert len(str(caught.value)) < 300


def test_parts_and_aliases() -> None:
    assert parse_name("prod.ml", 2) == ("prod", "ml")
    assert parse_alias("champion") == "champion"
    with pytest.raises(InvalidReference):
        parse_alias("x" * 64)


@given(ALIAS | LABEL)
def test_every_alias_could_be_a_label(text: str) -> None:
    assert parse_label(text) == text


@pytest.mark.parametrize("text", ["", "7", "0042", ".5", "+1", "1.4 0", "1.4.0\n", "é", "x" * 64])
def test_malformed_labels_are_refused(text: str) -> None:
    with pytest.raises(InvalidReference, match="is not a label"):
        parse_label(text)


def test_labels_say_which_version() -> None:
    for text in ("1.4.0", "1.4.0-rc.1+build_7", "v2", "7b"):
        reference = parse_version_reference(f"models:/prod.ml.iris@{text}")
        assert reference == VersionReference("prod.ml.iris", alias=text)
