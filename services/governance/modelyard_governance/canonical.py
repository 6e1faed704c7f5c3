"""Canonical JSON (RFC 8785): one byte sequence per value, so that a hash of it can be recomputed anywhere."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_EXACT = 2**53 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


_LIBRARY = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)


def canonical_json(value: Any) -> str:
    """Return a JSON value in canonical form.

    Args:
        value: None, bool, int, float, str, or mappings (with str keys), lists and tuples of these.

    Raises:
        ValueError: a number is not finite, an integer is not exact as a double, or a string is not Unicode.
        TypeError: something is not JSON.
    """
    if _is_common(value):
        text = _LIBRARY.encode(value)
        if text.isascii():
            return text
    return _canonical(value)


def _is_common(value: Any) -> bool:
    """Return whether the library's encoder, several times faster, writes a value canonically if all its text is ASCII.

    It writes some numbers otherwise than ECMAScript, sorts names by code points, and turns keys that are no strings into such.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is dict:
        return all(type(key) is str and _is_common(item) for key, item in value.items())
    if kind is list:
        return all(map(_is_common, value))
    if kind is int:
        return bool(abs(value) <= _EXACT)
    return bool(kind is float and 1e-4 <= abs(value) <= _EXACT and not value.is_integer())


def _canonical(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return _string(value)
        case int() | float():
            return _number(value)
        case Mapping():
            members = sorted(value.items(), key=lambda member: member[0].encode("utf-16-be", "surrogatepass"))
            return "{" + ",".join(f"{_string(key)}:{_canonical(item)}" for key, item in members) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_canonical, value)) + "]"
        case _:
            raise TypeError(f"{type(value).__name__} is not a JSON value")


def _string(text: str) -> str:
    if _SURROGATE.search(text):
        raise ValueError("a string holds half of a surrogate pair")
    return json.dumps(text, ensure_ascii=False)  # escapes exactly what RFC 8785 section 3.2.2.2 wants escaped


def _number(value: float) -> str:
    """Write a number as ECMAScript does (RFC 8785 section 3.2.2.3)."""
    if isinstance(value, int):
        if abs(value) <= _EXACT:
            return str(value)
        if int(float(value)) != value:
            raise ValueError(f"{value} is not exact as a double; send it as a string")
        value = float(value)
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    # Decimal of the shortest text that reads back as the same double has exactly the digits ECMAScript wants.
    _, digits, exponent = Decimal(repr(abs(value))).normalize().as_tuple()
    text = "".join(map(str, digits))
    return sign + _place(text, len(text) + int(exponent))


def _place(digits: str, point: int) -> str:
    """Write `0.digits * 10**point` with the decimal point where ECMAScript puts it."""
    count = len(digits)
    if count <= point <= 21:
        return digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return "0." + "0" * -point + digits
    power = f"e{point - 1:+d}"
    return f"{digits[0]}{power}" if count == 1 else f"{digits[0]}.{digits[1:]}{power}"
