"""The mark of a blob store as a document."""

from __future__ import annotations

import pytest

from modelyard_artifact.blobs.marks import Mark


@pytest.mark.parametrize("mark", [Mark("0198", 7, complete=True), Mark("", 0, complete=False)])
def test_what_is_written_is_read(mark: Mark) -> None:
    assert Mark.parse(mark.content) == mark


def test_the_published_form() -> None:
    assert Mark("a", 2, complete=True).content == b'{"installation": "a", "moves": 2, "complete": true}\n'
    assert Mark.parse(b'{"complete": false, "moves": 1, "installation": "b", "later": 1}') == Mark(
        "b", 1, complete=False
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b'{"installation": "a"}',
        b'{"installation": "a", "moves": "x", "complete": true}',
    ],
)
def test_something_else_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"installation\.json in the blob store is no mark"):
        Mark.parse(content)
