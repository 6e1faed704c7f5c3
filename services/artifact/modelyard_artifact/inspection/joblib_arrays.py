"""The pickles in a file of joblib, which writes the bytes of arrays between their operations.

Where these bytes begin and end only the operations before them tell. So they are followed with the standard library's own
machine, in which every class is replaced by one that does nothing: no import happens and no code of the file runs.
"""

from __future__ import annotations

import io
import pickle
import re
from math import prod
from typing import IO, Any

_WRAPPER = ("joblib.numpy_pickle", "NumpyArrayWrapper")
_MAX_DEPTH = 20
_ITEM = re.compile(r"[<>=|]?([a-zA-Z])(\d*)")
_WIDTHS = {"U": 4}


class NotReadable(Exception):
    """It is no file of joblib, or a broken one."""


class Inert:
    """Stands for an object of any class. Takes everything, does nothing."""

    kind: tuple[str, str] = ("", "")

    def __new__(cls, *arguments: Any, **_: Any) -> Inert:
        """Keep the arguments."""
        made = object.__new__(cls)
        made.arguments = arguments
        made.state = None
        return made

    arguments: tuple[Any, ...]
    state: Any

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take anything."""

    def __setstate__(self, state: Any) -> None:
        """Keep the state."""
        self.state = state

    def __call__(self, *arguments: Any, **_: Any) -> Inert:
        """Stand for the result too."""
        return Inert(*arguments)

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take anything."""

    def append(self, value: Any) -> None:
        """Take anything."""

    def extend(self, values: Any) -> None:
        """Take anything."""

    def add(self, value: Any) -> None:
        """Take anything."""


def parts(file: IO[bytes]) -> list[bytes]:
    """The operations of each pickle in the file, without the bytes of arrays.

    Raises:
        NotReadable: the file cannot be followed to its end.
    """
    found: list[bytes] = []
    try:
        _follow(file, found, 0)
        while file.read(1):
            file.seek(-1, io.SEEK_CUR)
            _follow(file, found, 0)
    except MemoryError:
        raise
    except Exception as error:
        raise NotReadable(str(error)) from error
    return found


def _follow(file: IO[bytes], found: list[bytes], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise NotReadable("arrays in arrays without end")
    machine = _Machine(file, found, depth)
    machine.load()
    found.append(b"".join(machine.pieces) + machine.take())


_Base: Any = vars(pickle)["_Unpickler"]  # the one in Python, whose steps can be replaced


class _Machine(_Base):  # type: ignore[misc]
    """The standard machine with inert classes, which skips the bytes of arrays."""

    def __init__(self, file: IO[bytes], found: list[bytes], depth: int) -> None:
        super().__init__(file)
        self._source = file
        self._found = found
        self._depth = depth
        self._start = file.tell()
        self.pieces: list[bytes] = []
        self.dispatch = {**_Base.dispatch, pickle.BUILD[0]: _Machine.load_build}

    def find_class(self, module: str, name: str) -> Any:
        """A class that does nothing, for whatever is asked for."""
        return type("Stub", (Inert,), {"kind": (module, name)})

    def persistent_load(self, pid: Any) -> Any:
        """An object from elsewhere is inert too."""
        return Inert(pid)

    def get_extension(self, code: int) -> None:
        """Refuse what cannot be told apart."""
        raise NotReadable(f"extension {code}")

    def load_build(self) -> None:
        """Give an object its state; behind that of an array its bytes follow."""
        _Base.load_build(self)
        built = self.stack[-1]
        if isinstance(built, Inert) and built.kind == _WRAPPER:
            self.pieces.append(self.take())
            self._skip(built.state)
            self._start = self._source.tell()

    def take(self) -> bytes:
        """The operations since the last array."""
        end = self._source.tell()
        self._source.seek(self._start)
        return self._source.read(end - self._start)

    def _skip(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise NotReadable("an array without a state")
        letter, width = _item(state.get("dtype"))
        if letter == "O":
            _follow(self._source, self._found, self._depth + 1)
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            self._source.seek(self._source.read(1)[0], io.SEEK_CUR)
        length = width * prod(int(size) for size in state["shape"])
        at = self._source.tell()
        size = self._source.seek(0, io.SEEK_END)
        if length < 0 or at + length > size:
            raise NotReadable("an array longer than the file")
        self._source.seek(at + length)


def _item(dtype: Any) -> tuple[str, int]:
    """Letter and bytes of one item of an array, from the arguments of `numpy.dtype`."""
    code = dtype.arguments[0] if isinstance(dtype, Inert) and dtype.arguments else None
    matched = _ITEM.fullmatch(code) if isinstance(code, str) else None
    if matched is None:
        raise NotReadable("an array of an unknown type")
    letter = matched[1]
    return letter, int(matched[2] or "1") * _WIDTHS.get(letter, 1)
