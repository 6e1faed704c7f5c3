"""A page of a list: filter, order and page token of a request, applied to a query.

asked = Asked.of(request)
rows, next_page_token = await fetch(connection, query, asked, FIELDS, scope=schema_id)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, RowMapping, Select, and_
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit import paging
from modelyard_kit.errors import InvalidField
from modelyard_kit.filters.fields import ListFields
from modelyard_kit.filters.lexer import UNSTORABLE
from modelyard_kit.filters.nodes import FieldType, Value
from modelyard_kit.filters.ordering import Ordering, parse_order
from modelyard_kit.filters.parser import parse_filter
from modelyard_kit.filters.sql import chosen
from modelyard_kit.filters.values import INTEGERS, PrincipalIds, nobody, parse_id, parse_time

R = TypeVar("R", bound=Mapping[Any, Any])

# Between the values of a token; text in PostgreSQL never has it.
_SEPARATOR = "\0"
_PRESENT = "="


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the request of a list asks for: `size` rows of `filter` in the order of `order_by`, from where `page_token` says."""

    size: int
    filter: str = ""
    order_by: str = ""
    page_token: str = ""

    @classmethod
    def of(cls, request: Any) -> Asked:
        """Return what the fields of these names in a request ask for.

        Raises:
            InvalidField: the page size is below zero.
        """
        return cls(
            size=paging.page_size(request.page_size),
            filter=request.filter,
            order_by=request.order_by,
            page_token=request.page_token,
        )


@dataclass(frozen=True, eq=False)
class Listing:
    """Which rows, in which order, from where on.

    Attributes:
        filter: the condition of the filter, or None.
        ordering: the order, complete.
        after: values of the last row of the page before, or None for the first page.
        fingerprint: of filter, order and scope; a token counts only for the same.
    """

    filter: ColumnElement[bool] | None
    ordering: Ordering
    after: tuple[Value | None, ...] | None
    fingerprint: str

    def apply(self, query: Select[Any], size: int) -> Select[Any]:
        """Return the query of one page: it selects what the order needs besides, and one row more than `size`."""
        columns = self.ordering.columns
        query = query.add_columns(*columns).order_by(*self.ordering.clauses(columns)).limit(size + 1)
        if self.filter is not None:
            query = query.where(self.filter)
        return query if self.after is None else query.where(self.ordering.after(self.after))

    def parts(self) -> tuple[Listing, ...]:
        """Return the listings whose rows, one after the other, are those of this one; one page goes through as many as it needs.

        Where the first field of the order can be NULL, its rows are those that have it, in an order and with a beginning that an
        index on the field serves, and then those that lack it.
        """
        with_field, without = self.ordering.split()
        if with_field is None:
            return (self,)
        is_null = self.ordering.keys[0].expression.is_(None)
        lacking = replace(self, filter=_both(self.filter, is_null), ordering=without)
        if self.after is not None and self.after[0] is None:
            return (lacking,)
        having = replace(self, filter=_both(self.filter, ~is_null), ordering=with_field)
        return having, replace(lacking, after=None)

    def page(self, rows: Sequence[R], size: int) -> tuple[Sequence[R], str]:
        """Return the rows of the page, and the token of the next one ("" after the last)."""
        if len(rows) <= size:
            return rows, ""
        last = rows[size - 1]
        parts = [_encode(last[f"order_{position}"]) for position in range(len(self.ordering.keys))]
        return rows[:size], paging.encode_token([self.fingerprint, _SEPARATOR.join(parts)])


def read_listing(
    filter: str,  # noqa: A002  # the name that the contract gives it
    order_by: str,
    page_token: str,
    fields: ListFields,
    *,
    scope: str = "",
    principals: PrincipalIds = nobody,
) -> Listing:
    """Return what a list request asks for.

    Args:
        filter: conditions on the rows; "" takes all.
        order_by: fields to sort by; "" is the order of the list.
        page_token: of the page before; "" is the first page.
        fields: what the list can be filtered and ordered by.
        scope: anything else that decides the rows, such as the id of their parent.
        principals: finds the id of a principal by name, for fields of the type PRINCIPAL.

    Raises:
        InvalidField: of "filter", "order_by" or "page_token".
        LimitExceeded: filter or order_by is too large.
    """
    node = parse_filter(filter, fields, principals)
    ordering = parse_order(order_by, fields)
    asked = _SEPARATOR.join(("" if node is None else str(node), str(ordering), scope))
    fingerprint = hashlib.sha256(asked.encode(errors="surrogatepass")).hexdigest()[:16]
    where = None if node is None else chosen(node, fields)
    return Listing(where, ordering, _start(page_token, ordering, fingerprint), fingerprint)


async def fetch(
    connection: AsyncConnection,
    query: Select[Any],
    asked: Asked,
    fields: ListFields,
    *,
    scope: str = "",
    principals: PrincipalIds = nobody,
) -> tuple[Sequence[RowMapping], str]:
    """Return a page of a query and the token of the next one; arguments and errors as `read_listing`."""
    listing = read_listing(
        asked.filter, asked.order_by, asked.page_token, fields, scope=scope, principals=principals
    )
    rows = (await connection.execute(listing.apply(query, asked.size))).mappings().all()
    return listing.page(rows, asked.size)


def _both(first: ColumnElement[bool] | None, second: ColumnElement[bool]) -> ColumnElement[bool]:
    return second if first is None else and_(first, second)


def _start(page_token: str, ordering: Ordering, fingerprint: str) -> tuple[Value | None, ...] | None:
    """Return the values in a token."""
    token = paging.decode_token(page_token, str, str)
    if token is None:
        return None
    if token[0] != fingerprint:
        problem = (
            "it belongs to a list with another filter, order_by or parent; repeat those, or start without it"
        )
        raise InvalidField("page_token", problem)
    parts = str(token[1]).split(_SEPARATOR)
    if len(parts) != len(ordering.keys):
        raise _unreadable()
    return tuple(
        _decode(part, key.reference.type, required=key.required)
        for part, key in zip(parts, ordering.keys, strict=True)
    )


def _encode(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return _PRESENT + value.hex()
    return _PRESENT + (value.isoformat() if isinstance(value, datetime) else str(value))


def _decode(part: str, of: FieldType, *, required: bool) -> Value | None:
    if not part and not required:
        return None
    try:
        value = _DECODERS[of](part.removeprefix(_PRESENT))
    except (ValueError, OverflowError):
        value = None
    if value is None or not part.startswith(_PRESENT):
        raise _unreadable()
    return value


def _unreadable() -> InvalidField:
    return InvalidField(
        "page_token", "not a token of this list; send next_page_token of the page before, unchanged"
    )


def _text(part: str) -> str | None:
    return None if UNSTORABLE.search(part) else part


def _integer(part: str) -> int | None:
    value = int(part)
    return value if value in INTEGERS else None


_DECODERS: Mapping[FieldType, Callable[[str], Value | None]] = {
    FieldType.TEXT: _text,
    FieldType.ENUM: _text,
    FieldType.INTEGER: _integer,
    FieldType.REAL: float.fromhex,
    FieldType.BOOLEAN: {"True": True, "False": False}.get,
    FieldType.TIMESTAMP: parse_time,
    FieldType.ID: parse_id,
}
