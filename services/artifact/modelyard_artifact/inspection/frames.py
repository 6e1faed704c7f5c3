"""How files get into the process: for each a line of JSON, then as many bytes as it says."""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_BYTES = 2**20
_MAX_LINE_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Frame:
    """A file: its path, which is only a label, its size, and how many of its bytes follow."""

    path: str
    size: int
    sent: int

    @property
    def whole(self) -> bool:
        """Whether all of it is there."""
        return self.sent == self.size

    def header(self) -> bytes:
        """The line that announces it."""
        return json.dumps(asdict(self)).encode() + b"\n"


def read(stream: IO[bytes]) -> Iterator[tuple[Frame, IO[bytes]]]:
    """Yield every file with its content, which is gone when the next one is asked for.

    Raises:
        EOFError: the stream ends inside a file.
    """
    while line := stream.readline(_MAX_LINE_BYTES):
        frame = Frame(**json.loads(line))
        with io.BytesIO() if frame.sent <= _CHUNK_BYTES else tempfile.TemporaryFile() as file:
            left = frame.sent
            while left:
                data = stream.read(min(left, _CHUNK_BYTES))
                if not data:
                    raise EOFError("the files end too early")
                file.write(data)
                left -= len(data)
            file.seek(0)
            yield frame, file
