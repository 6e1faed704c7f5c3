"""The `.model-ignore` of a folder: what in it is no part of the artifact."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from modelyard.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IGNORE = ".model-ignore"
_MAX_IGNORE_BYTES = 64 * 1024


class Ignore:
    """Patterns of a `.model-ignore`, matched as ADS does, from the right; a folder that matches goes with all in it."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns

    def __call__(self, path: str) -> bool:
        """Whether a file is left out."""
        if not self._patterns or path in {"score.py", "runtime.yaml"}:
            return False
        whole = PurePosixPath(path)
        candidates = [whole, *whole.parents][:-1]
        return any(candidate.match(pattern) for pattern in self._patterns for candidate in candidates)


def ignored(root: Path) -> Ignore:
    """What the `.model-ignore` of a folder leaves out; nothing if there is none.

    Raises:
        InvalidArgument: it cannot be understood.
    """
    source = root / IGNORE
    if not source.is_file():
        return Ignore(())
    data = source.read_bytes()
    if len(data) > _MAX_IGNORE_BYTES:
        raise InvalidArgument(f"{source} is larger than {_MAX_IGNORE_BYTES:,} bytes")
    try:
        lines = [line.strip() for line in data.decode().splitlines()]
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{source} is not UTF-8: {error}") from error
    patterns = [line.removesuffix("/") for line in lines if line and not line.startswith("#")]
    for pattern in patterns:
        if pattern.startswith("!"):
            raise InvalidArgument(f"{source}: {pattern!r}: patterns that take files back in are not known")
    return Ignore(tuple(pattern.removeprefix("/") for pattern in patterns))
