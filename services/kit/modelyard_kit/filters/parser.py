"""Text of a filter to its meaning. The grammar is in docs/filters.md; every rule of it is a method here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from modelyard_kit import limits
from modelyard_kit.filters.fields import ListFields
from modelyard_kit.filters.lexer import Kind, mistake, tokens
from modelyard_kit.filters.nodes import (
    And,
    Compare,
    Comparison,
    FieldType,
    IsNull,
    Like,
    Node,
    Not,
    OneOf,
    Or,
    Reference,
    Value,
)
from modelyard_kit.filters.values import PrincipalIds, nobody, principal_id, read_value

_SOURCE = "filter"
_EQUALITY = ("=", "!=", "IN", "NOT IN")
_ORDER = ("<", "<=", ">", ">=")
_PATTERN = ("LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE")
_NULL = ("IS NULL", "IS NOT NULL")

OPERATORS: Mapping[FieldType, tuple[str, ...]] = {
    FieldType.TEXT: _EQUALITY + _ORDER + _PATTERN + _NULL,
    FieldType.INTEGER: _EQUALITY + _ORDER + _NULL,
    FieldType.REAL: _EQUALITY + _ORDER + _NULL,
    FieldType.BOOLEAN: _EQUALITY + _NULL,
    FieldType.TIMESTAMP: _EQUALITY + _ORDER + _NULL,
    FieldType.ENUM: _EQUALITY + _NULL,
    FieldType.ID: _EQUALITY + _NULL,
    FieldType.TEXT_SET: _EQUALITY + _PATTERN + _NULL,
    FieldType.PRINCIPAL: _EQUALITY + _NULL,
}


def parse_filter(text: str, fields: ListFields, principals: PrincipalIds = nobody) -> Node | None:
    """Return what a filter means, or None if it is empty, which every row fulfils.

    Args:
        text: as it was sent.
        fields: of the list.
        principals: finds the id of a principal by name, for fields of the type PRINCIPAL.

    Raises:
        InvalidField: of "filter", with the column of the first mistake and what was expected there.
        LimitExceeded: it is too long, too deep, or has too many comparisons.
    """
    limits.check("filter_length", len(text))
    return _Parser(text, fields, principals).filter()


class _Parser:
    """Reads one word ahead; `depth` is the number of parentheses and NOTs around what is read."""

    def __init__(self, text: str, fields: ListFields, principals: PrincipalIds) -> None:
        self._tokens = tokens(text, _SOURCE)
        self._fields = fields
        self._principals = principals
        self._comparisons = 0
        self._token = next(self._tokens)

    def filter(self) -> Node | None:
        if self._is_at_end():
            return None
        node = self._disjunction(0)
        if not self._is_at_end():
            self._fail("AND, OR or the end")
        return node

    def _disjunction(self, depth: int) -> Node:
        terms = self._terms("OR", self._conjunction, depth)
        return terms[0] if len(terms) == 1 else Or(terms)

    def _conjunction(self, depth: int) -> Node:
        terms = self._terms("AND", self._condition, depth)
        return terms[0] if len(terms) == 1 else And(terms)

    def _terms(self, keyword: str, read: Callable[[int], Node], depth: int) -> tuple[Node, ...]:
        terms = [read(depth)]
        while self._token.keyword == keyword:
            self._advance()
            terms.append(read(depth))
        return tuple(terms)

    def _condition(self, depth: int) -> Node:
        limits.check("filter_depth", depth)
        if self._token.keyword == "NOT":
            self._advance()
            return Not(self._condition(depth + 1))
        if self._token.raw == "(":
            self._advance()
            node = self._disjunction(depth + 1)
            self._expect(")", "AND, OR or ')'")
            return node
        return self._comparison()

    def _comparison(self) -> Node:
        token = self._token
        if token.kind is not Kind.NAME or token.keyword:
            self._fail("a field, NOT or '('")
        self._comparisons += 1
        limits.check("filter_terms", self._comparisons)
        reference = self._fields.resolve(token, _SOURCE)
        self._advance()
        operator = self._operator(reference)
        if operator in _NULL:
            return IsNull(reference, negated=operator != "IS NULL")
        negated = operator.startswith("NOT ")
        operator = operator.removeprefix("NOT ")
        if operator == "IN":
            return OneOf(reference, self._values(reference), negated)
        if operator in _PATTERN:
            return Like(reference, self._pattern(reference), operator == "ILIKE", negated)
        return Compare(reference, Comparison(operator), self._value(reference))

    def _operator(self, reference: Reference) -> str:
        """Read an operator that this type of field takes."""
        first = self._token
        words = [first.keyword or first.raw]
        self._advance()
        if words == ["NOT"]:
            if self._token.keyword not in ("IN", "LIKE", "ILIKE"):
                self._fail("IN, LIKE or ILIKE")
            words.append(self._token.keyword)
            self._advance()
        elif words == ["IS"]:
            if self._token.keyword == "NOT":
                words.append("NOT")
                self._advance()
            self._expect("NULL", "NULL" if len(words) > 1 else "NULL or NOT NULL")
            words.append("NULL")
        operator = " ".join(words)
        takes = OPERATORS[reference.type]
        if operator not in takes:
            found = f"'{operator}'" if len(words) > 1 else str(first)
            expected = f"expected one of {', '.join(takes)}: {reference} is {reference.type}"
            raise mistake(_SOURCE, first.column, f"found {found}, {expected}")
        return operator

    def _values(self, reference: Reference) -> tuple[Value, ...]:
        self._expect("(", "'(' and a list of values")
        values = [self._value(reference)]
        while self._token.raw == ",":
            self._advance()
            values.append(self._value(reference))
        self._expect(")", "',' or ')'")
        return tuple(values)

    def _value(self, reference: Reference) -> Value:
        value = read_value(self._token, reference, self._fields.values_of(reference), _SOURCE)
        if reference.type is FieldType.PRINCIPAL:
            value = principal_id(self._token, reference, self._principals, _SOURCE)
        self._advance()
        return value

    def _pattern(self, reference: Reference) -> str:
        token = self._token
        pattern = str(self._value(reference))
        backslashes = len(pattern) - len(pattern.rstrip("\\"))
        if backslashes % 2:
            problem = "the pattern ends with a backslash that escapes nothing; for a backslash write two"
            raise mistake(_SOURCE, token.column, problem)
        return pattern

    def _expect(self, word: str, expected: str) -> None:
        if (self._token.keyword or self._token.raw) != word:
            self._fail(expected)
        self._advance()

    def _is_at_end(self) -> bool:
        return self._token.kind is Kind.END

    def _advance(self) -> None:
        if not self._is_at_end():
            self._token = next(self._tokens)

    def _fail(self, expected: str) -> NoReturn:
        raise mistake(_SOURCE, self._token.column, f"found {self._token}, expected {expected}")
