"""The mark that a blob store carries: which installation it belongs to.

A small JSON document beside the blobs, `{"installation": "<id>", "moves": 0, "complete": true}`, which people can read, too.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

MARK_NAME = "installation.json"
"""The file of the mark in the folder, or its key below the prefix."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose a store is.

    Attributes:
        installation: id of the installation, as its database has it.
        moves: how often the installation had moved when it came here: of two stores the one with more is the later.
        complete: whether everything that the database knows is there; False while it is being moved in.
    """

    installation: str
    moves: int
    complete: bool

    @property
    def content(self) -> bytes:
        """The document."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, content: bytes) -> Mark:
        """Reads the document.

        Raises:
            ValueError: it is none.
        """
        try:
            told = json.loads(content)
            mark = cls(str(told["installation"]), int(told["moves"]), bool(told["complete"]))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{MARK_NAME} in the blob store is no mark of an installation: {content[:100]!r}"
            ) from error
        return mark
