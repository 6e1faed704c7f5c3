"""Pickles: recognised by their operations, and scanned by picklescan without ever being loaded."""

from __future__ import annotations

import contextlib
import io
import logging
import pickletools
import re
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from picklescan.scanner import SafetyLevel, scan_pickle_bytes

from modelyard_artifact.inspection.joblib_arrays import NotReadable, parts

if TYPE_CHECKING:
    from collections.abc import Iterator

logging.getLogger("picklescan").setLevel(logging.CRITICAL)  # what it finds is told, not logged

_LOOK_OPERATIONS = 20_000
_BY_CHANCE = 3
_EXTENSIONS = frozenset(("EXT1", "EXT2", "EXT4"))
_CALLS = frozenset(("REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "EXT1", "EXT2", "EXT4"))
_NAME = re.compile(r"[A-Za-z_][\w.]*")
_PROTO = 0x80
_PROTOCOLS = frozenset(b"\x00\x01\x02\x03\x04\x05")


@dataclass(slots=True)
class Scan:
    """What a file of pickles imports when it is loaded, and whether all of it could be seen.

    Attributes:
        imports: (module, name) -> whether picklescan knows it as dangerous.
        hidden: imports whose names are made at run time, or taken from a registry.
        problem: why the rest was not seen; empty when everything was.
    """

    imports: dict[tuple[str, str], bool] = field(default_factory=dict)
    hidden: bool = False
    problem: str = ""


def looks_like(file: IO[bytes]) -> bool:
    """Whether a file begins with a pickle, also one that is cut off or broken behind what does harm."""
    file.seek(0)
    head = file.read(2)
    file.seek(0)
    operations: list[str] = []
    imported = False
    with contextlib.suppress(Exception):  # whatever is wrong there, there the pickle ends
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
            # One that loading would stop at ends it, so that other binary files are none by chance.
            if operation.name == "PROTO" and argument not in _PROTOCOLS:
                break
            if operation.name == "INST" and "MARK" not in operations:
                break
            operations.append(operation.name)
            imported = imported or _is_import(operation.name, argument)
            if operation.name == "STOP":
                break
            if count > _LOOK_OPERATIONS:
                return True  # so many in a row are no chance
    if not operations:
        return False
    if head[0] == _PROTO and head[1] in _PROTOCOLS:
        return len(operations) > 1
    if operations[-1] == "STOP":
        # Text of a few letters may be a pickle by chance; one that imports, or fills what there is, is none by chance.
        imported = imported or not _EXTENSIONS.isdisjoint(operations)
        return imported or (len(operations) > _BY_CHANCE and not file.read(1))
    return imported and not _CALLS.isdisjoint(operations)


def scan(file: IO[bytes]) -> Scan:
    """Look at every pickle in a file, one behind the other.

    Raises:
        MemoryError: it is too large for this process.
    """
    found = Scan()
    for part in _streams(file, found):
        _scan_part(part, found)
    return found


def _streams(file: IO[bytes], found: Scan) -> Iterator[IO[bytes]]:
    """The file as streams of operations: itself, or what is around the raw arrays that joblib writes between them."""
    file.seek(0)
    problem = _unreadable(file)
    if not problem:
        file.seek(0)
        yield file
        return
    file.seek(0)
    try:
        whole = parts(file)
    except NotReadable:
        found.problem = problem
        file.seek(0)
        yield file
        return
    yield from (io.BytesIO(part) for part in whole)


def _unreadable(file: IO[bytes]) -> str:
    """Why the operations cannot be read to the end of the file; empty when they can."""
    try:
        while True:
            for _ in pickletools.genops(file):
                pass
            if not file.read(1):
                return ""
            file.seek(-1, io.SEEK_CUR)
    except Exception as error:  # noqa: BLE001  (the library raises whatever a malformed stream makes it)
        return f"it cannot be read to its end: {error}"


def _scan_part(stream: IO[bytes], found: Scan) -> None:
    start = stream.tell()
    if not stream.read(1):
        return
    stream.seek(start)
    try:
        result = scan_pickle_bytes(stream, "file")
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  (it raises ValueError and more on imports that it cannot follow)
        found.hidden = True
        return
    for entry in result.globals:
        key = (str(entry.module), str(entry.name))
        if "unknown" in key:
            found.hidden = True
        found.imports[key] = entry.safety is SafetyLevel.Dangerous
    stream.seek(start)
    found.hidden = found.hidden or _uses_registry(stream)


def _uses_registry(stream: IO[bytes]) -> bool:
    """Whether something is taken from `copyreg`'s registry of numbers, whose names picklescan cannot see."""
    try:
        while stream.read(1):
            stream.seek(-1, io.SEEK_CUR)
            if any(operation.name in _EXTENSIONS for operation, _, _ in pickletools.genops(stream)):
                return True
    except Exception:  # noqa: BLE001  (told by `_unreadable`)
        return False
    return False


def _is_import(operation: str, argument: Any) -> bool:
    if operation not in {"GLOBAL", "INST"}:
        return operation == "STACK_GLOBAL"
    module, _, name = str(argument).partition(" ")
    return bool(_NAME.fullmatch(module) and _NAME.fullmatch(name))
