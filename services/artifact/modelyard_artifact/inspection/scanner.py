"""Scans the files of an artifact, and the files in its archives."""

from __future__ import annotations

import ast
import bz2
import gzip
import io
import lzma
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import IO, TYPE_CHECKING, Any

from picklescan.relaxed_zipfile import RelaxedZipFile

from modelyard._zip_records import ArchiveRefused, read_members
from modelyard_artifact.inspection import formats, pickles
from modelyard_artifact.inspection.judgement import CRITICAL, HIDDEN, HIGH, LOW, MEDIUM, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from modelyard_artifact.inspection.bounds import Bounds

SCANNER = f"picklescan {version('picklescan')}"

CLEAN, FOUND, INCOMPLETE = "CLEAN", "FOUND", "INCOMPLETE"
_CHUNK_BYTES = 2**20
_SHOWN_CHARACTERS = 500
_ZIPS = frozenset(("zip", "skops", "keras", "pytorch", "torchscript", "npz"))
_COMPRESSED: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "lzma": lzma.LZMAFile,
    "zlib": lambda file: _Zlib(file),  # noqa: PLW0108  (it is defined below)
}
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"Lambda"')
_TENSORFLOW_OPERATIONS = (b"PyFunc", b"EagerPyFunc", b"ReadFile", b"WriteFile", b"LoadLibrary")
_EXTERNAL_DATA = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")
_UNSAFE_PATH = re.compile(r"^([/\\]|[A-Za-z]:)|(^|[/\\])\.\.([/\\]|$)")
_BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, NotImplementedError,
    ValueError, KeyError, struct.error, UnicodeError,
)  # fmt: skip


class _TooMuch(Exception):
    """A bound of one file is reached."""


class Scanner:
    """Findings and formats of all files seen so far."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._findings: dict[tuple[str, str, str], dict[str, str]] = {}
        self._formats: list[dict[str, Any]] = []
        self._complete = True
        self._dropped = False
        self._unpacked = 0
        self._members = 0

    def scan(self, path: str, file: IO[bytes], *, whole: bool) -> None:
        """Look at one file of the artifact; `whole` says that all of it is there."""
        self._unpacked = self._members = 0
        try:
            kind, runs = self._look(path, file, whole=whole, depth=0)
        except MemoryError:
            kind, runs = "other", True
            self._unseen(path, "it needs more memory than an inspection has")
        except _TooMuch as error:
            kind, runs = formats.detect(file), True
            self._unseen(path, str(error))
        self._formats.append({"path": path, "format": kind, "may_run_code": runs})

    def result(self) -> dict[str, Any]:
        """What was found, as JSON values."""
        findings = sorted(
            self._findings.values(), key=lambda one: (_ORDER[one["severity"]], one["path"], one["subject"])
        )
        serious = any(one["severity"] != LOW for one in findings)
        # Those that may run code first, because only so many are kept.
        kept = sorted(self._formats, key=lambda one: (not one["may_run_code"], one["path"]))[
            : self._bounds.formats
        ]
        return {
            "scan": FOUND if serious else CLEAN if self._complete else INCOMPLETE,
            "findings": findings,
            "formats": sorted(kept, key=lambda one: str(one["path"])),
        }

    def _look(self, path: str, file: IO[bytes], *, whole: bool, depth: int) -> tuple[str, bool]:
        """Scan a file, and return its format and whether loading it can run code."""
        kind = formats.detect(file, whole=whole)
        runs = kind in formats.RUNS_CODE
        if not whole and (runs or kind in _ZIPS or kind in _COMPRESSED or kind in {"tar", "npy", "other"}):
            self._unseen(path, "the file is too large to be scanned whole")
            runs = True
        file.seek(0)
        if kind in _ZIPS and whole:
            runs = self._zip(path, file, depth) or runs
        elif kind == "tar" and whole:
            runs = self._tar(path, file, depth)
        elif kind in _COMPRESSED and whole:
            runs = self._compressed(path, file, kind, depth)
        elif kind in formats.UNREADABLE:
            runs = True
            self._unseen(path, f"nothing here can open archives of the format {kind}")
        else:
            runs = self._content(path, file, kind) or runs
        if whole and kind not in _ZIPS and self._is_zip_too(file):
            self._find(
                path,
                MEDIUM,
                kind,
                "the file is a zip archive at the same time: some programs will see other content",
            )
            runs = self._zip(path, file, depth) or runs
        return kind, runs

    def _content(self, path: str, file: IO[bytes], kind: str) -> bool:
        """Scan a file that contains no others; return whether its content makes that it can run code."""
        if kind == "pickle":
            self._pickle(path, file)
        elif kind == "npy":
            return self._npy(path, file)
        elif kind in {"hdf5", "keras"} and _contains(file, _LAMBDA):
            self._find(
                path, HIGH, "keras.layers.Lambda", "a Lambda layer: loading the model can run the code in it"
            )
        elif kind == "tensorflow":
            for operation in _TENSORFLOW_OPERATIONS:
                if _contains(file, re.compile(re.escape(operation))):
                    self._find(
                        path,
                        HIGH,
                        f"tensorflow.{operation.decode()}",
                        "running the graph reads or writes files, or runs code",
                    )
        elif kind == "onnx":
            self._onnx(path, file)
        elif kind in {"elf", "pe", "mach-o"}:
            self._find(
                path, MEDIUM, kind, "a program or library in machine code, which nothing here can judge"
            )
        return False

    def _pickle(self, path: str, file: IO[bytes]) -> None:
        scan = pickles.scan(file)
        for (module, name), dangerous in scan.imports.items():
            verdict = judge(module, name, dangerous=dangerous)
            self._find(path, verdict.severity, f"{module}.{name}", verdict.description)
        if scan.hidden:
            self._find(path, HIDDEN.severity, "unknown", HIDDEN.description)
        if scan.problem:
            self._unseen(path, scan.problem)

    def _npy(self, path: str, file: IO[bytes]) -> bool:
        """Scan an array; only one of Python objects holds a pickle."""
        try:
            file.seek(6)
            major = file.read(2)[0]
            length = (
                struct.unpack("<H", file.read(2))[0] if major == 1 else struct.unpack("<I", file.read(4))[0]
            )
            if length > 2**16:
                raise ValueError("its header is too long")
            header = ast.literal_eval(file.read(length).decode("latin-1").strip())
            objects = _has_objects(header["descr"])
        except (*_BROKEN, SyntaxError, IndexError, TypeError, RecursionError) as error:
            self._unseen(path, f"the header of the array cannot be read: {error}")
            return True
        if objects:
            self._pickle(path, io.BytesIO(file.read()))
        return objects

    def _onnx(self, path: str, file: IO[bytes]) -> None:
        """Look where a graph wants its weights from: a place outside of the artifact is a file of the machine that loads it."""
        for match in _matches(file, _EXTERNAL_DATA, more=130):
            length = match[1][0]
            place = match.string[match.end() : match.end() + length].decode("utf-8", "replace")
            if _UNSAFE_PATH.search(place):
                self._find(
                    path, HIGH, place, "the graph reads its weights from a file outside of the artifact"
                )

    def _zip(self, path: str, file: IO[bytes], depth: int) -> bool:
        try:
            read_members(file, most=self._bounds.members)
        except ArchiveRefused as error:
            self._find(
                path,
                MEDIUM,
                "zip",
                f"the archive {_which(error)}{error.problem}: programs may see different content",
            )
        file.seek(0)
        runs = False
        try:
            with RelaxedZipFile(file, "r") as archive:
                for member in archive.infolist():
                    if not member.is_dir():
                        runs = (
                            self._member(path, member.filename, partial(archive.open, member), depth) or runs
                        )
        except _BROKEN as error:
            self._unseen(path, f"the archive cannot be opened: {error}")
            return True
        return runs

    def _tar(self, path: str, file: IO[bytes], depth: int) -> bool:
        runs = False
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    if member.isreg():
                        runs = (
                            self._member(path, member.name, partial(archive.extractfile, member), depth)
                            or runs
                        )
                    elif not member.isdir():
                        self._find(path, LOW, member.name, "a link or device in an archive")
        except _BROKEN as error:
            self._unseen(path, f"the archive cannot be read to its end: {error}")
            return True
        return runs

    def _member(self, path: str, name: str, start: Callable[[], Any], depth: int) -> bool:
        inner = f"{path}!{name}"
        self._members += 1
        if self._members > self._bounds.members:
            raise _TooMuch(f"it holds more than {self._bounds.members:,} files")
        try:
            with start() as source, self._spooled(source) as content:
                return self._inside(inner, content, depth)
        except _BROKEN as error:
            self._unseen(inner, f"it cannot be unpacked: {error}")
            return True

    def _compressed(self, path: str, file: IO[bytes], kind: str, depth: int) -> bool:
        try:
            with self._spooled(_COMPRESSED[kind](file)) as content:
                return self._inside(path, content, depth)
        except _BROKEN as error:
            self._unseen(path, f"it cannot be uncompressed: {error}")
            return True

    def _inside(self, path: str, content: IO[bytes], depth: int) -> bool:
        if depth + 1 > self._bounds.depth:
            self._unseen(path, f"archives are opened {self._bounds.depth} levels deep")
            return True
        return self._look(path, content, whole=True, depth=depth + 1)[1]

    @contextmanager
    def _spooled(self, source: IO[bytes]) -> Iterator[IO[bytes]]:
        """The content of a stream as a file, within what one file may unpack."""
        with tempfile.SpooledTemporaryFile(max_size=8 * _CHUNK_BYTES) as file:
            while data := source.read(_CHUNK_BYTES):
                self._unpacked += len(data)
                if self._unpacked > self._bounds.unpacked_bytes:
                    raise _TooMuch(f"it unpacks to more than {self._bounds.unpacked_bytes:,} bytes")
                file.write(data)
            file.seek(0)
            yield file

    @staticmethod
    def _is_zip_too(file: IO[bytes]) -> bool:
        """Whether a zip hangs behind the content, as programs find that read zips from the end."""
        file.seek(0)
        try:
            if not zipfile.is_zipfile(file):
                return False
            with zipfile.ZipFile(file) as archive:
                return bool(archive.namelist())
        except _BROKEN:
            return False

    def _find(self, path: str, severity: str, subject: str, description: str) -> None:
        if len(self._findings) >= self._bounds.findings:
            if severity == LOW:
                return
            self._make_room()
        path, subject, description = (text[:_SHOWN_CHARACTERS] for text in (path, subject, description))
        path, subject, description = (_storable(text) for text in (path, subject, description))
        finding = {"path": path, "severity": severity, "subject": subject, "description": description}
        self._findings.setdefault((path, subject, description), finding)

    def _make_room(self) -> None:
        """Drop the least important finding."""
        worst = max(self._findings, key=lambda key: _ORDER[self._findings[key]["severity"]])
        del self._findings[worst]

    def _unseen(self, path: str, why: str) -> None:
        self._complete = False
        self._find(path, LOW, "not scanned", why)


_ORDER = {CRITICAL: 0, HIGH: 1, MEDIUM: 2, LOW: 3}


class _Zlib(io.RawIOBase):
    """Uncompresses a zlib stream."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflater = zlib.decompressobj()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        while not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._file.read(_CHUNK_BYTES)
            if not packed:
                raise EOFError("the compressed data is cut off")
            if data := self._inflater.decompress(packed, size):
                return data
        return b""


def _has_objects(descr: Any) -> bool:
    """Whether the type of an array, as its header describes it, has Python objects in it."""
    if isinstance(descr, str):
        return "O" in descr
    if isinstance(descr, (list, tuple)):
        return any(
            _has_objects(part)
            for field in descr
            for part in (field[1:2] if isinstance(field, tuple) else [field])
        )
    raise ValueError("no type of arrays")


def _which(error: ArchiveRefused) -> str:
    return f"has a member {error.member!r} that " if error.member else ""


def _storable(text: str) -> str:
    """The text as the database takes it."""
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _contains(file: IO[bytes], pattern: re.Pattern[bytes]) -> bool:
    return next(_matches(file, pattern), None) is not None


def _matches(file: IO[bytes], pattern: re.Pattern[bytes], *, more: int = 256) -> Iterator[re.Match[bytes]]:
    """Every match in a file, which is read in pieces that overlap by `more` bytes."""
    file.seek(0)
    kept = b""
    while data := file.read(_CHUNK_BYTES):
        text = kept + data
        yield from pattern.finditer(text)
        kept = text[-more:]
