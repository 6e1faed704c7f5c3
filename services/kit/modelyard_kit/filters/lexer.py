"""The words of a filter or an order_by, each with the column it starts in (the first is 1, counted in characters)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from modelyard_kit.errors import InvalidField
from modelyard_kit.filters.nodes import BARE_KEY

KEYWORDS = frozenset(
    ("AND", "OR", "NOT", "IN", "LIKE", "ILIKE", "IS", "NULL", "TRUE", "FALSE", "ASC", "DESC")
)

# PostgreSQL stores neither, and protobuf does not carry the second kind.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
NAME = re.compile(r"[^\W\d]\w*")

_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![\w.])")
_SYMBOL = re.compile(r"[=!<>]+|[(),]")
_QUOTED = re.compile(r"""'[^']*(?:''[^']*)*'|"[^"]*(?:""[^"]*)*\"""")
_OTHER = re.compile(r"[\w.+\-]+|.", re.DOTALL)
_SHOWN_LENGTH = 40


class Kind(Enum):
    """What sort of word it is."""

    NAME = auto()
    TEXT = auto()
    NUMBER = auto()
    SYMBOL = auto()
    OTHER = auto()  # no word of the language
    END = auto()


_REST = ((Kind.NUMBER, _NUMBER), (Kind.SYMBOL, _SYMBOL), (Kind.OTHER, _OTHER))


@dataclass(frozen=True)
class Token:
    """One word.

    Attributes:
        kind: what sort it is.
        raw: the word as written.
        column: where it starts.
        value: the name without its key, the text without its quotes, or as `raw`.
        key: what follows the dot of a name.
        quoted: whether that key is in quotes.
    """

    kind: Kind
    raw: str
    column: int
    value: str
    key: str | None = None
    quoted: bool = False

    @property
    def keyword(self) -> str:
        """The keyword in capitals, or "" if this is none."""
        if self.kind is not Kind.NAME or not self.raw.isascii():
            return ""  # a dotless i has the capital of the usual one
        upper = self.raw.upper()
        return upper if upper in KEYWORDS else ""

    def __str__(self) -> str:
        if self.kind is Kind.END:
            return "the end"
        return f"text {shown(self.value)}" if self.kind is Kind.TEXT else shown(self.raw)


def shown(text: str) -> str:
    """Return a piece of the caller's text for a message: in quotes, not too long, control characters escaped."""
    short = text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 1] + "…"
    return short.join("''") if short.isprintable() else repr(short)


def mistake(source: str, column: int, problem: str) -> InvalidField:
    """Return the error for a mistake in `source` ("filter" or "order_by")."""
    return InvalidField(source, f"column {column}: {problem}")


def tokens(text: str, source: str) -> Iterator[Token]:
    """Return the words of `text`, the last being the end.

    Raises:
        InvalidField: a quote is not closed, a key is missing, or a character cannot be part of text.
    """
    unstorable = UNSTORABLE.search(text)
    if unstorable:
        code = ord(unstorable.group())
        raise mistake(source, unstorable.start() + 1, f"U+{code:04X} cannot be part of any text")
    position = _skip_space(text, 0)
    while position < len(text):
        token = _token(text, position, source)
        yield token
        position = _skip_space(text, position + len(token.raw))
    yield Token(Kind.END, "", position + 1, "")


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _token(text: str, position: int, source: str) -> Token:
    column = position + 1
    if text[position] in "'\"":
        raw, value = _quoted(text, position, source)
        return Token(Kind.TEXT, raw, column, value)
    if match := NAME.match(text, position):
        return _name(text, match, source)
    for kind, pattern in _REST:
        if match := pattern.match(text, position):
            return Token(kind, match.group(), column, match.group())
    raise AssertionError("unreachable: the last pattern fits any character")


def _quoted(text: str, position: int, source: str) -> tuple[str, str]:
    """Return the text in quotes at `position` as written, and what it stands for."""
    match = _QUOTED.match(text, position)
    quote = text[position]
    if not match:
        raise mistake(source, position + 1, f"the quote {quote} is not closed; inside of text write it twice")
    raw = match.group()
    return raw, raw[1:-1].replace(quote * 2, quote)


def _name(text: str, match: re.Match[str], source: str) -> Token:
    """Return the name at `match`, with its key if a dot follows."""
    name, column, dot = match.group(), match.start() + 1, match.end()
    if not text.startswith(".", dot):
        return Token(Kind.NAME, name, column, name)
    if text.startswith(("'", '"'), dot + 1):
        raw, key = _quoted(text, dot + 1, source)
        return Token(Kind.NAME, f"{name}.{raw}", column, name, key, quoted=True)
    bare = BARE_KEY.match(text, dot + 1)
    if not bare:
        example = f"{name}.team or {name}.'two words'"
        raise mistake(source, dot + 2, f"expected a key after the dot, such as {example}")
    return Token(Kind.NAME, f"{name}.{bare.group()}", column, name, bare.group())
