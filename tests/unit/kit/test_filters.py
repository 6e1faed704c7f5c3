"""The filter language: what it reads, what it refuses and where, how much, and what SQL it makes."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, Column, Double, MetaData, Table, Text, Uuid, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from modelyard_kit.access import SYSTEM_ID, Scope
from modelyard_kit.errors import InvalidField, LimitExceeded
from modelyard_kit.filters import (
    Asked,
    Field,
    FieldType,
    ListFields,
    MapField,
    SetField,
    condition,
    json_number,
    json_text,
    parse_filter,
    parse_order,
    permitted,
    read_listing,
)
from modelyard_kit.filters.nodes import (
    And,
    Compare,
    Comparison,
    IsNull,
    Like,
    Node,
    Not,
    OneOf,
    Or,
    Reference,
)
from modelyard_kit.limits import LIMITS

v = Table(
    "versions",
    MetaData(),
    Column("id", Uuid(as_uuid=False)),
    Column("name", Text),
    Column("description", Text),
    Column("owner", Text),
    Column("number", BigInteger),
    Column("state", Text),
    Column("signed", Boolean),
    Column("create_time", TIMESTAMP(timezone=True)),
    Column("score", Double),
    Column("tags", JSONB),
    Column("metrics", JSONB),
    Column("metadata", JSONB),
)
a = Table("aliases", MetaData(), Column("id", Uuid(as_uuid=False)), Column("alias", Text))
FIELDS = ListFields(
    {
        "id": Field(FieldType.ID, v.c.id, required=True),
        "name": Field(FieldType.TEXT, v.c.name, required=True),
        "description": Field(FieldType.TEXT, v.c.description),
        "owner": Field(FieldType.TEXT, v.c.owner),
        "number": Field(FieldType.INTEGER, v.c.number, required=True),
        "state": Field(FieldType.ENUM, v.c.state, ("PENDING", "READY", "FAILED"), required=True),
        "signed": Field(FieldType.BOOLEAN, v.c.signed),
        "create_time": Field(FieldType.TIMESTAMP, v.c.create_time, required=True),
        "score": Field(FieldType.REAL, v.c.score),
        "provenance.commit": Field(FieldType.TEXT, v.c.owner),
        "alias": SetField(select(a.c.alias).where(a.c.id == v.c.id)),
        "tags": MapField(FieldType.TEXT, lambda key: json_text(v.c.tags, key)),
        "metrics": MapField(FieldType.REAL, lambda key: json_number(v.c.metrics, key)),
        "metadata": MapField(FieldType.TEXT, lambda key: json_text(v.c.metadata, key)),
    },
    unique="id",
    default_order="number desc",
)
CHAIN = ListFields(
    {
        "number": FIELDS.fields["number"],
        "name": FIELDS.fields["name"],
        "author": Field(FieldType.PRINCIPAL, v.c.owner, required=True),
        "facts": MapField(
            FieldType.TEXT, lambda key: json_text(v.c.metadata, key), known=("use", "use_case", "own.<key>")
        ),
    },
    unique="number",
    orders=("number",),
)
NAME = Reference("name", None, FieldType.TEXT)
NUMBER = Reference("number", None, FieldType.INTEGER)
ID = "0198c5f0-7a3b-7c11-9d5e-2f6a1b3c4d5e"
DOCS = (Path(__file__).parents[3] / "docs/filters.md").read_text(encoding="utf-8")


def is_number(value: int) -> Compare:
    return Compare(NUMBER, Comparison.EQUAL, value)


def problem(text: str) -> str:
    """Return what is wrong with a filter, without the field's name."""
    with pytest.raises(InvalidField) as caught:
        parse_filter(text, FIELDS)
    assert caught.value.metadata == {"field": "filter"}
    return caught.value.violations[0].description


def order_problem(text: str) -> str:
    with pytest.raises(InvalidField) as caught:
        parse_order(text, FIELDS)
    assert caught.value.metadata == {"field": "order_by"}
    return caught.value.violations[0].description


def sql(expression: Any) -> str:
    """Return the statement for PostgreSQL on one line."""
    dialect: Any = postgresql.asyncpg
    return re.sub(r"\s+", " ", str(expression.compile(dialect=dialect.dialect())))


# --- What it reads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = 'iris'", Compare(NAME, Comparison.EQUAL, "iris")),
        ('name="iris"', Compare(NAME, Comparison.EQUAL, "iris")),
        ("name != 'it''s'", Compare(NAME, Comparison.NOT_EQUAL, "it's")),
        ('name != "say ""hi"" it\'s"', Compare(NAME, Comparison.NOT_EQUAL, 'say "hi" it\'s')),
        ("name = '日本 😀\n'", Compare(NAME, Comparison.EQUAL, "日本 😀\n")),
        ("name = ''", Compare(NAME, Comparison.EQUAL, "")),
        ("number<=-3", Compare(NUMBER, Comparison.AT_MOST, -3)),
        ("number > +9223372036854775807", Compare(NUMBER, Comparison.GREATER, 2**63 - 1)),
        ("number in (1,2 , 3)", OneOf(NUMBER, (1, 2, 3))),
        ("number Not In (1)", OneOf(NUMBER, (1,), negated=True)),
        ("name like 'a%'", Like(NAME, "a%")),
        ("name NOT LIKE 'a\\\\'", Like(NAME, "a\\\\", negated=True)),
        ("name iLike 'a%'", Like(NAME, "a%", ignore_case=True)),
        ("name not ilike 'a%'", Like(NAME, "a%", ignore_case=True, negated=True)),
        ("name is null", IsNull(NAME)),
        ("name IS NOT NULL", IsNull(NAME, negated=True)),
        ("score = 3", Compare(Reference("score", None, FieldType.REAL), Comparison.EQUAL, 3.0)),
        ("score < 1.5e-3", Compare(Reference("score", None, FieldType.REAL), Comparison.LESS, 0.0015)),
        ("signed = true", Compare(Reference("signed", None, FieldType.BOOLEAN), Comparison.EQUAL, True)),
        ("state = 'ready'", Compare(Reference("state", None, FieldType.ENUM), Comparison.EQUAL, "READY")),
        (f"id = '{ID.upper()}'", Compare(Reference("id", None, FieldType.ID), Comparison.EQUAL, ID)),
        (
            "alias = 'champion'",
            Compare(Reference("alias", None, FieldType.TEXT_SET), Comparison.EQUAL, "champion"),
        ),
    ],
)
def test_comparisons(text: str, expected: Node) -> None:
    assert parse_filter(text, FIELDS) == expected


@pytest.mark.parametrize(
    ("text", "name", "key"),
    [
        ("tags.team", "tags", "team"),
        ("tags.'team'", "tags", "team"),
        ('tags."two words"', "tags", "two words"),
        ("tags.'it''s'", "tags", "it's"),
        ("tags.mlflow.source.git-commit", "tags", "mlflow.source.git-commit"),
        ("tags.in", "tags", "in"),
        ("tags.2026", "tags", "2026"),
        ("tags.日本", "tags", "日本"),
        ("metadata.a/b", "metadata", "a/b"),
        ("tags.''", "tags", ""),
        ("provenance.commit", "provenance.commit", None),
    ],
)
def test_keys_of_maps(text: str, name: str, key: str | None) -> None:
    assert parse_filter(f"{text} IS NULL", FIELDS) == IsNull(Reference(name, key, FieldType.TEXT))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("number = 1 OR number = 2 AND number = 3", Or((is_number(1), And((is_number(2), is_number(3)))))),
        ("(number = 1 OR number = 2) AND number = 3", And((Or((is_number(1), is_number(2))), is_number(3)))),
        ("NOT number = 1 AND number = 2", And((Not(is_number(1)), is_number(2)))),
        ("NOT (number = 1 AND number = 2)", Not(And((is_number(1), is_number(2))))),
        ("not not((number=1))", Not(Not(is_number(1)))),
        ("number=1or number=2or number=3", None),
    ],
)
def test_precedence(text: str, expected: Node | None) -> None:
    if expected is None:
        assert problem(text).startswith("column 8: found '1or'")
    else:
        assert parse_filter(text, FIELDS) == expected


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31t12:00:00.5z", datetime(2026, 1, 31, 12, 0, 0, 500_000, UTC)),
        ("2026-01-31 12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31T12:00:00.123456000Z", datetime(2026, 1, 31, 12, 0, 0, 123_456, UTC)),
    ],
)
def test_times(text: str, time: datetime) -> None:
    expected = Compare(Reference("create_time", None, FieldType.TIMESTAMP), Comparison.EQUAL, time)
    assert parse_filter(f"create_time = '{text}'", FIELDS) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("2026-01-31", "2026-01-31T12:00:00", "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", "now"),
        *(
            "2026-01-31T12:00:60Z",
            "2026-01-31T12:00:00.1234567Z",
            "0001-01-01T00:00:00+01:00",
            "2026-01-31T12:00:00+25:00",
        ),
        "\uff12026-01-31T12:00:00Z",  # a digit that is not ASCII
    ],
)
def test_other_times_are_refused(text: str) -> None:
    assert problem(f"create_time = '{text}'").startswith(
        f"column 15: found text '{text}', expected a value: create_time is"
    )


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_filter_takes_all(text: str) -> None:
    assert parse_filter(text, FIELDS) is None
    assert read_listing(text, "", "", FIELDS).filter is None


@pytest.mark.parametrize("block", re.findall(r"```filter\n(.*?)```", DOCS, re.DOTALL))
def test_the_examples_of_the_documentation_are_filters(block: str) -> None:
    for line in block.splitlines():
        assert parse_filter(line, FIELDS) is not None


# --- What it refuses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"), re.findall(r"^\| `(.*?)` \| (column .*?) \|$", DOCS, re.MULTILINE)
)
def test_the_errors_of_the_documentation(text: str, message: str) -> None:
    assert problem(text).startswith(message.rstrip("…"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name", "column 5: found the end, expected one of =, !=, IN"),
        ("name == 'x'", "column 6: found '==', expected one of =, !=, IN"),
        ("name <> 'x'", "column 6: found '<>', expected one of ="),
        ("name & 'x'", "column 6: found '&', expected one of ="),
        ("name = ", "column 8: found the end, expected a value"),
        (
            "name = NULL",
            "column 8: found 'NULL', expected a value: name is TEXT and takes text in quotes, such as 'iris'; write name IS NULL",
        ),
        ("name = 3", "column 8: found '3', expected a value"),
        ("name = name", "column 8: found 'name', expected a value"),
        ("name = 'x' name = 'y'", "column 12: found 'name', expected AND, OR or the end"),
        ("name = 'x')", "column 11: found ')', expected AND, OR or the end"),
        ("name IN ()", "column 10: found ')', expected a value"),
        ("name IN ('a',)", "column 14: found ')', expected a value"),
        ("name IN ('a' 'b')", "column 14: found text 'b', expected ',' or ')'"),
        ("name IN 'a'", "column 9: found text 'a', expected '(' and a list of values"),
        ("name NOT 'x'", "column 10: found text 'x', expected IN, LIKE or ILIKE"),
        ("name IS 'x'", "column 9: found text 'x', expected NULL or NOT NULL"),
        ("name IS NOT TRUE", "column 13: found 'TRUE', expected NULL"),
        ("AND", "column 1: found 'AND', expected a field, NOT or '('"),
        ("NOT", "column 4: found the end, expected a field, NOT or '('"),
        ("12 = number", "column 1: found '12', expected a field"),
        ("()", "column 2: found ')', expected a field"),
        ("number = 1.5", "column 10: found '1.5', expected a value: number is INTEGER"),
        (
            "number = 9223372036854775808",
            "column 10: found '9223372036854775808', expected a value: number is INTEGER",
        ),
        ("number = 12abc", "column 10: found '12abc', expected a value: number is INTEGER"),
        ("score = 1e999", "column 9: found '1e999', expected a value: score is REAL"),
        ("score = NaN", "column 9: found 'NaN', expected a value: score is REAL"),
        (
            "state = 'redy'",
            "column 9: found text 'redy', expected a value: state is ENUM and takes one of 'PENDING', 'READY'",
        ),
        ("id = 'x'", "column 6: found text 'x', expected a value: id is ID"),
        ("alias < 'x'", "column 7: found '<', expected one of =, !=, IN, NOT IN, LIKE"),
        ("number LIKE '1%'", "column 8: found 'LIKE', expected one of"),
        ("state NOT LIKE '1%'", "column 7: found 'NOT LIKE', expected one of"),
        ("name LIKE 'a\\'", "column 11: the pattern ends with a backslash"),
        ("name LIKE 3", "column 11: found '3', expected a value"),
        (
            "tags = 'x'",
            "column 1: tags is a map: expected a key as well, such as tags.key or tags.'two words'",
        ),
        ("tags. = 'x'", "column 6: expected a key after the dot"),
        ("tags .team = 'x'", "column 1: tags is a map"),
        ("tags.'team = 3", "column 6: the quote ' is not closed"),
        ("name.x = 'x'", "column 1: name is TEXT and has no keys"),
        ("name = 'a\0'", "column 10: U+0000 cannot be part of any text"),
        ("name = '\ud800'", "column 9: U+D800 cannot be part of any text"),
        ("日本 = 'x'", "column 1: unknown field '日本'"),
        ("name = '日本' AND x = 1", "column 17: unknown field 'x'"),
        ("\u0131s = 1", "column 1: unknown field '\u0131s'"),  # a dotless i: its capital would make it IS
    ],
)
def test_mistakes(text: str, message: str) -> None:
    assert problem(text).startswith(message)


def test_an_unknown_field_names_the_known_ones_the_closest_first() -> None:
    known = problem("crate_time = 'x'").split("first: ")[1].split(", ")
    assert known[0] == "create_time"
    assert {"name", "tags.<key>", "metrics.<key>", "provenance.commit"} < set(known)


def test_long_words_are_shown_in_part() -> None:
    assert len(problem(f"number = '{'x' * 8000}'")) < 200
    assert "\n" not in problem("number = 'a\nb'")


# --- How much it takes --------------------------------------------------------------------------------------------------------


def at_limit(limit: str, more: int) -> str:
    """Return a filter or order_by with as much as a limit admits, and `more`."""
    size = LIMITS[limit].maximum + more
    match limit:
        case "filter_length":
            return f"name = '{'x' * (size - 9)}'"
        case "filter_terms":
            return " AND ".join(["name = 'x'"] * size)
        case "filter_depth":
            return "(" * (size - 1) + "NOT name = 'x'" + ")" * (size - 1)
        case "order_by_length":
            return "name".ljust(size)
    return ", ".join(f"tags.t{number}" for number in range(size))


@pytest.mark.parametrize(
    "limit", ["filter_length", "filter_terms", "filter_depth", "order_by_length", "order_by_fields"]
)
def test_limits(limit: str) -> None:
    def read(text: str) -> object:
        return (parse_order if limit.startswith("order_by") else parse_filter)(text, FIELDS)

    assert read(at_limit(limit, 0)) is not None
    with pytest.raises(LimitExceeded) as caught:
        read(at_limit(limit, 1))
    assert caught.value.metadata["limit"] == limit


def test_the_documentation_tells_the_limits() -> None:
    for limit in ("filter_length", "filter_terms", "filter_depth", "order_by_length", "order_by_fields"):
        assert re.search(rf"\b{LIMITS[limit].maximum:,}\b[^;]*?\(`{limit}`\)", DOCS), limit


def test_deep_nesting_ends_at_the_limit() -> None:
    for text in ("(" * 8_000, "NOT " * 2_000, "(NOT " * 1_600):
        with pytest.raises(LimitExceeded, match="filter_depth"):
            parse_filter(text, FIELDS)


def test_the_largest_filter_makes_sql() -> None:
    nested = "(" * 31 + "NOT name = 'x'" + ")" * 31
    text = " OR ".join([nested, *["tags.a IN ('x', 'y')"] * 99])
    node = parse_filter(text, FIELDS)
    assert node is not None
    assert sql(condition(node, FIELDS)).count("ANY") == 99


# --- What SQL it makes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = 'x'", "versions.name = $1::VARCHAR"),
        ("name < 'x'", '(versions.name COLLATE "C") < $1::VARCHAR'),
        ("name IN ('x', 'y')", "versions.name = ANY ($1::TEXT[])"),
        ("number > 3", "versions.number > $1::BIGINT"),
        ("tags.'it''s' = 'x'", "(versions.tags ->> $1::TEXT) = $2::VARCHAR"),
        ("NOT number IN (1)", "NOT (versions.number = ANY ($1::BIGINT[]))"),
        ("number NOT IN (1)", "NOT (versions.number = ANY ($1::BIGINT[]))"),
        ("name ILIKE 'x'", "(versions.name COLLATE pg_c_utf8) ILIKE $1::VARCHAR"),
        (f"id = '{ID}'", "versions.id = $1::UUID"),
        ("owner IS NULL", "versions.owner IS NULL"),
    ],
)
def test_conditions_have_parameters_only(text: str, expected: str) -> None:
    node = parse_filter(text, FIELDS)
    assert node is not None
    assert sql(condition(node, FIELDS)) == expected


def test_an_order_that_an_index_serves_has_no_place_for_null_and_compares_rows() -> None:
    first = read_listing("", "", "", FIELDS)
    _, token = first.page([{"order_0": 7, "order_1": ID}, {}], 1)
    query = sql(read_listing("", "", token, FIELDS).apply(select(v.c.id), 50))
    assert "WHERE (versions.number, versions.id) < ($1::BIGINT, $2::UUID)" in query
    assert "ORDER BY order_0 DESC, order_1 DESC" in query


def test_an_order_with_null_bounds_the_first_field() -> None:
    first = read_listing("", "number, score desc", "", FIELDS)
    _, token = first.page([{"order_0": 7, "order_1": None, "order_2": ID}, {}], 1)
    listing = read_listing("", "number, score desc", token, FIELDS)
    assert listing.after == (7, None, ID)
    query = sql(listing.apply(select(v.c.id), 50))
    assert "WHERE versions.number >= $1::BIGINT AND (versions.number > $2::BIGINT OR" in query
    assert "ORDER BY order_0 ASC, order_1 DESC NULLS LAST, order_2 DESC" in query


def test_the_parts_of_an_order_with_null_are_those_that_an_index_by_falling_value_serves() -> None:
    def parts(order_by: str, token: str = "") -> list[str]:
        listing = read_listing("number = 1", order_by, token, FIELDS)
        return [sql(part.apply(select(v.c.id), 50)) for part in listing.parts()]

    having, lacking = parts("score desc")
    assert "WHERE versions.number = $1::BIGINT AND versions.score IS NOT NULL" in having
    assert "ORDER BY order_0 DESC NULLS LAST, order_1 DESC" in having
    assert "versions.score IS NULL ORDER BY order_1 DESC" in lacking
    assert "ORDER BY order_0 ASC NULLS FIRST, order_1 ASC" in parts("score")[0]

    first = read_listing("number = 1", "score desc", "", FIELDS)
    _, token = first.page([{"order_0": 0.5, "order_1": ID}, {}], 1)
    having, lacking = parts("score desc", token)
    assert "versions.score <= $2::FLOAT AND (versions.score < $3::FLOAT OR" in having
    assert "versions.score IS NULL ORDER BY" in lacking
    _, token = first.page([{"order_0": None, "order_1": ID}, {}], 1)
    (lacking,) = parts("score desc", token)
    assert "versions.score IS NULL AND (versions.id) < ($2::UUID)" in lacking
    assert len(parts("number")) == 1


# --- Orders and pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "number DESC, id DESC"),
        (" name ", "name ASC, id ASC"),
        ("metrics.accuracy desc, name", "metrics.accuracy DESC, name ASC, id ASC"),
        ("tags.'two words' Desc", "tags.'two words' DESC, id DESC"),
        ("id desc", "id DESC"),
        ("id, name", "id ASC, name ASC"),
    ],
)
def test_orders_are_completed(text: str, expected: str) -> None:
    assert str(parse_order(text, FIELDS)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,", "column 6: found the end, expected a field"),
        (",", "column 1: found ',', expected a field"),
        ("name number", "column 6: found 'number', expected ASC, DESC, ',' or the end"),
        ("name desc asc", "column 11: found 'asc', expected ',' or the end"),
        ("name, tags.a, name desc", "column 15: name is there twice"),
        ("number, alias", "column 9: alias is TEXT_SET, which has no order"),
        ("desc", "column 1: found 'desc', expected a field"),
        ("naem", "column 1: unknown field 'naem'; known, the closest first: name,"),
        ("tags", "column 1: tags is a map"),
        ("'name'", "column 1: found text 'name', expected a field"),
    ],
)
def test_mistakes_in_orders(text: str, message: str) -> None:
    assert order_problem(text).startswith(message)


def token_of(filter: str = "", order_by: str = "", scope: str = "") -> str:  # noqa: A002
    listing = read_listing(filter, order_by, "", FIELDS, scope=scope)
    row = {"order_0": 7, "order_1": ID}
    shown, token = listing.page([row, row], 1)
    assert len(shown) == 1
    return token


def test_the_last_page_has_no_token() -> None:
    listing = read_listing("", "", "", FIELDS)
    assert listing.page([{"order_0": 7, "order_1": ID}], 1) == ([{"order_0": 7, "order_1": ID}], "")
    assert listing.page([], 1) == ([], "")


def test_a_token_counts_for_the_same_list_however_it_is_written() -> None:
    token = token_of("number > 3 AND name = 'x'", "number", "model-1")
    listing = read_listing('(number>3) and name = "x"', "number ASC , id", token, FIELDS, scope="model-1")
    assert listing.after == (7, ID)


@pytest.mark.parametrize(
    ("filter", "order_by", "scope"),
    [
        ("number > 4", "number", "model-1"),
        ("", "number", "model-1"),
        ("number > 3", "number desc", "model-1"),
        ("number > 3", "name", "model-1"),
        ("number > 3", "number", "model-2"),
    ],
)
def test_a_token_of_another_list_is_refused(filter: str, order_by: str, scope: str) -> None:  # noqa: A002
    token = token_of("number > 3", "number", "model-1")
    with pytest.raises(InvalidField, match="another filter, order_by or parent") as caught:
        read_listing(filter, order_by, token, FIELDS, scope=scope)
    assert caught.value.metadata == {"field": "page_token"}


# --- Tables of fields --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unique"),
    [
        ("null", "id"),
        ("two words", "id"),
        ("1st", "id"),
        ("tags.team", "id"),
        ("x", "x"),
        ("x", "tags"),
        ("x", "y"),
    ],
)
def test_a_table_that_could_not_work_is_refused(name: str, unique: str) -> None:
    fields = {"id": FIELDS.fields["id"], "tags": FIELDS.fields["tags"], name: Field(FieldType.TEXT, v.c.name)}
    with pytest.raises(ValueError, match="cannot|could"):
        ListFields(fields, unique=unique)


# --- Principals, maps of known keys, lists with an order of their own ----------------------------------------------------------


AUTHOR = Reference("author", None, FieldType.PRINCIPAL)
ADA = "0198c5f0-7a3b-7c11-9d5e-0000000000ad"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("author = 'ada'", Compare(AUTHOR, Comparison.EQUAL, ADA)),
        (f"author != '{ADA.upper()}'", Compare(AUTHOR, Comparison.NOT_EQUAL, ADA)),
        (f"author NOT IN ('ada', '{ID}')", OneOf(AUTHOR, (ADA, ID), negated=True)),
        ("author IS NULL", IsNull(AUTHOR)),
    ],
)
def test_principals_are_named_or_given_by_id(text: str, expected: Any) -> None:
    assert parse_filter(text, CHAIN, {"ada": ADA}.get) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "author IN ('ada', 'bob')",
            "column 19: there is no principal called 'bob': author takes the name or the id of one",
        ),
        (
            "author != 7",
            "column 11: found '7', expected a value: author is PRINCIPAL and takes the name or the id of a principal in quotes, such as 'ada'",
        ),
        (
            "author LIKE 'a%'",
            "column 8: found 'LIKE', expected one of =, !=, IN, NOT IN, IS NULL, IS NOT NULL: author is PRINCIPAL",
        ),
        (
            "number = 1 AND facts.usee = 'x'",
            "column 16: unknown field 'facts.usee'; known: facts.use, facts.use_case, facts.own.<key>",
        ),
        (
            "facts.'own.' = 'x'",
            "column 1: unknown field 'facts.own.'; known: facts.use, facts.use_case, facts.own.<key>",
        ),
    ],
)
def test_mistakes_in_names_and_keys_have_their_column(text: str, message: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_filter(text, CHAIN, {"ada": ADA}.get)
    assert caught.value.violations[0].description == message


def test_known_keys_are_taken() -> None:
    for key in ("use", "use_case", "own.a", "'own.two words'"):
        assert parse_filter(f"facts.{key} IS NULL", CHAIN) is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name", "column 1: found 'name', expected number: this list has no other order"),
        ("number, name desc", "column 9: found 'name', expected number: this list has no other order"),
    ],
)
def test_a_list_with_an_order_of_its_own_takes_no_other(text: str, message: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse_order(text, CHAIN)
    assert caught.value.violations[0].description == message
    assert str(parse_order("number desc", CHAIN)) == "number DESC"


def test_principals_have_no_order() -> None:
    with pytest.raises(InvalidField, match="author is PRINCIPAL, which has no order"):
        parse_order("author", replace(CHAIN, orders=()))


def test_what_a_request_asks_for() -> None:
    @dataclass(frozen=True)
    class Request:
        page_size: int
        filter: str = "number > 1"
        order_by: str = "name"
        page_token: str = "t"

    asked = Asked.of(Request(5_000))
    assert asked == Asked(size=1_000, filter="number > 1", order_by="name", page_token="t")
    with pytest.raises(InvalidField, match="page_size"):
        Asked.of(Request(-1))


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (Scope("p", frozenset(), frozenset({"x"}), everything=True), "true"),
        (Scope("p", frozenset({"x"}), frozenset({SYSTEM_ID})), "false"),
    ],
)
def test_what_is_permitted_without_a_look_at_the_row(scope: Scope, expected: str) -> None:
    assert sql(permitted(scope, (v.c.id,))) == expected
