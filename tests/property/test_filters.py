"""The filter language: what PostgreSQL answers is what plain Python answers over the same rows, whatever is asked.

Rows and filters are random: NULL in every column, maps without the key, metrics that are no numbers, patterns with wildcards and
escapes, letters of many scripts. Every generated filter goes its whole way: tree, text, tree, SQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    RowMapping,
    Table,
    Text,
    Uuid,
    insert,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from modelyard_kit import paging
from modelyard_kit.errors import InvalidField, LimitExceeded
from modelyard_kit.filters import (
    Field,
    FieldType,
    ListFields,
    MapField,
    SetField,
    chosen,
    condition,
    json_number,
    json_text,
    parse_filter,
    read_listing,
)
from modelyard_kit.filters.lexer import Kind, tokens
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
    Value,
)
from modelyard_kit.filters.parser import OPERATORS
from tests.framework.filters_reference import Row, evaluate, sort, value_of
from tests.framework.postgres import TestPostgres

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("uid", Uuid(as_uuid=False), primary_key=True),
    Column("rank", Integer, nullable=False),
    Column("name", Text, nullable=False),
    Column("note", Text),
    Column("size", BigInteger),
    Column("score", Double),
    Column("ready", Boolean),
    Column("time", TIMESTAMP(timezone=True)),
    Column("state", Text),
    Column("tags", JSONB, nullable=False),
    Column("metrics", JSONB, nullable=False),
)
labels = Table(
    "labels",
    metadata,
    Column("uid", Uuid(as_uuid=False), ForeignKey("things.uid"), primary_key=True),
    Column("label", Text, primary_key=True),
)
STATES = ("PENDING", "READY", "FAILED")
FIELDS = ListFields(
    {
        "uid": Field(FieldType.ID, things.c.uid, required=True),
        "rank": Field(FieldType.INTEGER, things.c.rank, required=True),
        "name": Field(FieldType.TEXT, things.c.name, required=True),
        "note": Field(FieldType.TEXT, things.c.note),
        "size": Field(FieldType.INTEGER, things.c.size),
        "score": Field(FieldType.REAL, things.c.score),
        "ready": Field(FieldType.BOOLEAN, things.c.ready),
        "time": Field(FieldType.TIMESTAMP, things.c.time),
        "state": Field(FieldType.ENUM, things.c.state, STATES),
        "labels": SetField(select(labels.c.label).where(labels.c.uid == things.c.uid)),
        "tags": MapField(
            FieldType.TEXT,
            lambda key: json_text(things.c.tags, key),
            holds=lambda key, value: things.c.tags.contains({key: value}),
        ),
        "metrics": MapField(FieldType.REAL, lambda key: json_number(things.c.metrics, key)),
    },
    unique="uid",
)

# --- Rows ---------------------------------------------------------------------------------------------------------------

# Few values, so that filters often hit; and letters whose cases are special.
texts = st.text(st.sampled_from("aAbBäÄßẞςΣİi%_\\'\" \n日😀"), max_size=4) | st.text(
    st.characters(exclude_categories=("Cs", "Cn"), exclude_characters="\0"), max_size=3
)
keys = st.sampled_from(("team", "git.commit", "two words", "it's", '"', "日本", "1/2", "%"))
ids = st.integers(0, 20).map(lambda number: f"0198c5f0-7a3b-7c11-9d5e-{number:012d}")
small = st.integers(-3, 3)
integers = small | st.integers(-(2**63), 2**63 - 1)
reals = (
    small.map(float)
    | st.sampled_from((0.1, 1e-9, 5e-324, 1.7e308, -0.0))
    | st.floats(allow_nan=False, allow_infinity=False)
)
times = st.builds(
    lambda seconds, micros: (
        datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=micros)
    ),
    small,
    st.integers(-1, 1),
) | st.datetimes(timezones=st.just(UTC))
metric_values = st.one_of(
    integers, reals, texts, st.booleans(), st.none(), st.lists(small, max_size=2), st.just({"a": 1})
)


def rows_of(draw: st.DrawFn, maximum: int) -> list[dict[str, Any]]:
    row = st.fixed_dictionaries(
        {
            "uid": ids,
            "rank": small,
            "name": texts,
            "note": st.none() | texts,
            "size": st.none() | integers,
            "score": st.none() | reals,
            "ready": st.none() | st.booleans(),
            "time": st.none() | times,
            "state": st.none() | st.sampled_from(STATES),
            "tags": st.dictionaries(keys, texts, max_size=3),
            "metrics": st.dictionaries(keys, metric_values, max_size=3),
            "labels": st.lists(texts, max_size=2, unique=True),
        }
    )
    return draw(st.lists(row, max_size=maximum, unique_by=lambda row: row["uid"]))


def empty_row(number: int, **values: Any) -> dict[str, Any]:
    """Return a row with nothing but these values."""
    row: dict[str, Any] = dict.fromkeys(column.name for column in things.c)
    uid = f"0198c5f0-7a3b-7c11-9d5e-{number:012d}"
    return {**row, "uid": uid, "rank": 0, "name": "", "tags": {}, "metrics": {}, "labels": [], **values}


# --- Filters ------------------------------------------------------------------------------------------------------------

VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.TEXT: texts,
    FieldType.TEXT_SET: texts,
    FieldType.INTEGER: integers,
    FieldType.REAL: reals,
    FieldType.BOOLEAN: st.booleans(),
    FieldType.TIMESTAMP: times,
    FieldType.ENUM: st.sampled_from(STATES),
    FieldType.ID: ids,
}
patterns = st.lists(
    st.sampled_from(("%", "_", "\\%", "\\_", "\\\\", "\\a"))
    | texts.map(lambda text: text.replace("\\", "\\\\")),
    max_size=4,
).map("".join)


@st.composite
def references(draw: st.DrawFn) -> Reference:
    name = draw(st.sampled_from(sorted(FIELDS.fields)))
    field = FIELDS.fields[name]
    return Reference(name, draw(keys) if isinstance(field, MapField) else None, field.type)


def plain_values(reference: Reference, row: Row) -> list[Any]:
    """Return what a row has there, fit for a comparison."""
    if reference.name == "labels":
        return list(row["labels"])
    value = value_of(reference, row)
    return [] if value is None else [value]


@st.composite
def conditions(draw: st.DrawFn, known: Sequence[Row]) -> Node:
    """One comparison, often with a value that some row has."""
    reference = draw(references())
    there = [value for row in known for value in plain_values(reference, row)]
    values: st.SearchStrategy[Value] = VALUES[reference.type]
    if there:
        values = values | st.sampled_from(there)
    operator = draw(st.sampled_from(OPERATORS[reference.type]))
    negated = "NOT " in operator
    match operator.replace("NOT ", ""):
        case "IS NULL":
            return IsNull(reference, negated)
        case "IN":
            return OneOf(reference, tuple(draw(st.lists(values, min_size=1, max_size=3))), negated)
        case "LIKE" | "ILIKE" as like:
            return Like(reference, draw(patterns), like == "ILIKE", negated)
    return Compare(reference, Comparison(operator), draw(values))


def trees(known: Sequence[Row] = ()) -> st.SearchStrategy[Node]:
    def grow(terms: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        several = st.lists(terms, min_size=2, max_size=3).map(tuple)
        return st.builds(Not, terms) | st.builds(And, several) | st.builds(Or, several)

    return st.recursive(conditions(known), grow, max_leaves=6)


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[Node]]:
    rows = rows_of(draw, 8)
    return rows, draw(st.lists(trees(rows), min_size=3, max_size=3))


# --- PostgreSQL ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Things:
    """The tables above on a server; every `with_rows` begins with empty ones."""

    runner: asyncio.Runner
    engine: AsyncEngine

    def with_rows(self, rows: Sequence[Row], work: Callable[[AsyncConnection], Any]) -> Any:
        """Return what `work` returns when these are the rows."""
        return self.runner.run(self._with_rows(rows, work))

    async def _with_rows(self, rows: Sequence[Row], work: Callable[[AsyncConnection], Any]) -> Any:
        async with self.engine.connect() as connection, connection.begin() as transaction:
            if rows:
                plain = [{column.name: row[column.name] for column in things.c} for row in rows]
                await connection.execute(insert(things), plain)
            labelled = [{"uid": row["uid"], "label": label} for row in rows for label in row["labels"]]
            if labelled:
                await connection.execute(insert(labels), labelled)
            result = await work(connection)
            await transaction.rollback()
            return result


@pytest.fixture(scope="module")
def database(postgres_server: TestPostgres) -> Iterator[Things]:
    address = postgres_server.empty().replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(address, pool_size=1)

    async def create() -> None:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)

    with asyncio.Runner() as runner:
        runner.run(create())
        yield Things(runner, engine)
        runner.run(engine.dispose())


async def ids_where(connection: AsyncConnection, node: Node) -> set[str]:
    query = select(things.c.uid).where(condition(node, FIELDS))
    found = set((await connection.execute(query)).scalars())
    query = select(things.c.uid).where(chosen(node, FIELDS))
    assert set((await connection.execute(query)).scalars()) == found
    return found


def examples(number: int) -> settings:
    """Return how much to try, on a machine that may be busy."""
    return settings(max_examples=number)


# --- Tests --------------------------------------------------------------------------------------------------------------


@examples(80)
@given(questions())
def test_sql_answers_as_plain_python(
    database: Things, question: tuple[list[dict[str, Any]], list[Node]]
) -> None:
    rows, nodes = question
    read = [parse_filter(str(node), FIELDS) for node in nodes]
    assert read == nodes

    async def ask(connection: AsyncConnection) -> list[set[str]]:
        return [await ids_where(connection, node) for node in nodes]

    found = database.with_rows(rows, ask)
    for node, answer in zip(nodes, found, strict=True):
        assert answer == {row["uid"] for row in rows if evaluate(node, row)}, str(node)


@st.composite
def texts_and_patterns(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Texts, and for each a pattern that may well fit: letters in the other case, or wildcards in their place."""
    some = draw(st.lists(texts, min_size=4, max_size=8))
    near = []
    for text in some:
        pieces = []
        for letter in text:
            escaped = "\\" + letter if letter in "%_\\" else letter
            pieces.append(
                draw(st.sampled_from((escaped, letter.swapcase() if letter.isalpha() else escaped, "_", "%")))
            )
        near.append("".join(pieces))
    return some, near


@examples(60)
@given(texts_and_patterns(), st.booleans())
def test_patterns_match_as_in_plain_python(
    database: Things, some: tuple[list[str], list[str]], ignore_case: bool
) -> None:
    values, wanted = some
    rows = [empty_row(number, name=value) for number, value in enumerate(values)]
    nodes = [Like(Reference("name", None, FieldType.TEXT), pattern, ignore_case) for pattern in wanted]

    async def ask(connection: AsyncConnection) -> list[set[str]]:
        return [await ids_where(connection, node) for node in nodes]

    for node, answer in zip(nodes, database.with_rows(rows, ask), strict=True):
        assert answer == {row["uid"] for row in rows if evaluate(node, row)}, str(node)


@examples(100)
@given(trees(), st.randoms(use_true_random=False))
def test_case_and_space_change_nothing(node: Node, random: Any) -> None:
    words = []
    for token in tokens(str(node), "filter"):
        raw = token.raw
        if token.keyword:
            raw = random.choice((raw.lower(), raw.title(), raw))
        elif token.kind is Kind.TEXT and random.random() < 0.5:
            raw = '"' + token.value.replace('"', '""') + '"'
        words.append(raw)
    text = "".join(random.choice((" ", "\n\t", "  ")) + word for word in words)
    assert parse_filter(text, FIELDS) == node


@st.composite
def browsings(
    draw: st.DrawFn,
) -> tuple[list[dict[str, Any]], list[tuple[Reference, bool]], list[int], Node | None]:
    """Rows, an order, the size of each page, a filter."""
    rows = rows_of(draw, 16)
    ordered = references().filter(lambda reference: reference.name != "labels")
    keys = draw(st.lists(st.tuples(ordered, st.booleans()), max_size=3, unique_by=lambda key: key[0]))
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    return rows, keys, sizes, draw(st.none() | conditions(rows))


@examples(80)
@given(browsings(), st.booleans())
def test_pages_make_up_the_whole_list(
    database: Things,
    browsing: tuple[list[dict[str, Any]], list[tuple[Reference, bool]], list[int], Node | None],
    in_parts: bool,
) -> None:
    rows, keys, sizes, node = browsing
    order_by = ", ".join(f"{reference}{' desc' if descending else ''}" for reference, descending in keys)

    async def browse(connection: AsyncConnection) -> list[str]:
        found: list[str] = []
        token = ""
        for turn in range(len(rows) + 1):
            size = sizes[turn % len(sizes)]
            listing = read_listing("" if node is None else str(node), order_by, token, FIELDS, scope="all")
            rows_read: list[RowMapping] = []
            for part in listing.parts() if in_parts else (listing,):
                query = part.apply(select(things.c.uid), size - len(rows_read))
                rows_read += (await connection.execute(query)).mappings()
                if len(rows_read) > size:
                    break
            page, token = listing.page(rows_read, size)
            assert len(page) == size or not token
            found += [row["uid"] for row in page]
            if not token:
                return found
        raise AssertionError("the pages do not end")

    complete = [*keys, (Reference("uid", None, FieldType.ID), bool(keys) and keys[-1][1])]
    expected = [row["uid"] for row in sort(rows, complete) if node is None or evaluate(node, row)]
    assert database.with_rows(rows, browse) == expected


PIECES = (
    *("AND", "or", "NOT", "IN", "LIKE", "ilike", "IS", "NULL", "TRUE", "ASC", "desc"),
    *("=", "!=", "<", "<=", ">", ">=", "==", "(", ")", ",", ".", "'", '"', "\\", "%"),
    *(
        "name",
        "state",
        "labels",
        "tags.team",
        "metrics.'a b'",
        "tags",
        "size",
        "time",
        "ready",
        "uid",
        "nothing",
    ),
    *(
        "'x'",
        "'READY'",
        "3",
        "-1.5e3",
        "9" * 30,
        "1e999",
        "'2026-01-31T12:00:00Z'",
        "'0000-00-00T00:00:00Z'",
        "\0",
        "\ud800",
    ),
)
garbage = st.lists(st.sampled_from(PIECES), max_size=25).map(" ".join) | st.text(max_size=40)


@examples(300)
@given(garbage)
def test_garbage_is_refused_at_a_column(text: str) -> None:
    for source, order_by in (("filter", False), ("order_by", True)):
        try:
            read_listing("" if order_by else text, text if order_by else "", "", FIELDS)
        except InvalidField as error:
            assert error.metadata == {"field": source}
            column = int(error.message.split("column ")[1].split(":")[0])
            assert 1 <= column <= len(text) + 1
        except LimitExceeded as error:
            assert error.metadata["limit"] in (
                "filter_length",
                "filter_terms",
                "filter_depth",
                "order_by_length",
                "order_by_fields",
            )


@examples(60)
@given(garbage | trees().map(str), garbage, st.integers(0, 200))
def test_what_is_accepted_can_be_asked(database: Things, text: str, more: str, cut: int) -> None:
    """Also of filters that someone broke, those that still read well run on PostgreSQL."""
    try:
        node = parse_filter(text[:cut] + more if cut < len(text) else text, FIELDS)
    except (InvalidField, LimitExceeded):
        return
    if node is None:
        return
    broken = node

    async def ask(connection: AsyncConnection) -> set[str]:
        return await ids_where(connection, broken)

    assert database.with_rows([], ask) == set()


@examples(100)
@given(st.text(max_size=60), st.text(max_size=20), st.lists(st.text(max_size=20), min_size=1, max_size=4))
def test_other_page_tokens_are_refused(token: str, fingerprint: str, parts: list[str]) -> None:
    own = read_listing("", "score desc, time", "", FIELDS).fingerprint
    crafted = (
        token,
        paging.encode_token([fingerprint, "\0".join(parts)]),
        paging.encode_token([own, "\0".join(parts)]),
    )
    for text in filter(None, crafted):
        try:
            listing = read_listing("", "score desc, time", text, FIELDS)
        except InvalidField as error:
            assert error.metadata == {"field": "page_token"}
        else:
            assert listing.after is not None
            assert len(listing.after) == 3


@examples(100)
@given(
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(
        lambda d: timezone(timedelta(minutes=d // timedelta(minutes=1)))
    ),
    times,
)
def test_times_count_in_every_zone(zone: timezone, time: datetime) -> None:
    try:
        local = time.astimezone(zone)
    except OverflowError:
        assume(False)
    node = parse_filter(f"time = '{local.isoformat()}'", FIELDS)
    assert node == Compare(Reference("time", None, FieldType.TIMESTAMP), Comparison.EQUAL, time)
