"""Canonical JSON against the examples of RFC 8785, and as an inverse of parsing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard_governance.canonical import _canonical, canonical_json

# RFC 8785, appendix B, and section 3.2.2.3.
NUMBERS = [
    (0.0, "0"),
    (-0.0, "0"),
    (5e-324, "5e-324"),
    (-5e-324, "-5e-324"),
    (1.7976931348623157e308, "1.7976931348623157e+308"),
    (9007199254740992.0, "9007199254740992"),
    (9007199254740992, "9007199254740992"),
    (295147905179352830000.0, "295147905179352830000"),
    (9.999999999999997e22, "9.999999999999997e+22"),
    (1e23, "1e+23"),
    (1.0000000000000001e23, "1.0000000000000001e+23"),
    (999999999999999700000.0, "999999999999999700000"),
    (1e21, "1e+21"),
    (9.999999999999997e-7, "9.999999999999997e-7"),
    (0.000001, "0.000001"),
    (333333333.3333332, "333333333.3333332"),
    (333333333.33333325, "333333333.33333325"),
    (-0.0000033333333333333333, "-0.0000033333333333333333"),
    (1424953923781206.2, "1424953923781206.2"),
    (3, "3"),
    (3.0, "3"),
    (4.50, "4.5"),
    (2e-3, "0.002"),
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_numbers_are_written_as_ecmascript_does(value: float, text: str) -> None:
    assert canonical_json(value) == text


def test_the_example_of_the_rfc() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    wanted = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json(value) == wanted


def test_members_are_sorted_by_utf16_code_units() -> None:
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical_json(value)).values()) == [2, 4, 6, 7, 1, 5, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53 + 1, "\ud800"])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"not a JSON number|not exact|surrogate"):
        canonical_json({"value": value})


@pytest.mark.parametrize("value", [[b"x"], {"a": {1: 2}}, {1.5, 2.5}])
def test_what_is_not_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, AttributeError), match=r"bytes|int|set"):
        canonical_json(value)


@given(JSON)
def test_what_the_library_writes_is_what_the_rfc_wants(value: object) -> None:
    assert canonical_json(value) == _canonical(value)


@given(JSON)
def test_parsing_gives_the_value_back_and_the_same_text_again(value: object) -> None:
    text = canonical_json(value)
    parsed = json.loads(text, parse_int=float)  # every number of canonical JSON is a double
    assert parsed == value
    assert canonical_json(parsed) == text
