"""What a file is, by its content and never by its name, and whether loading such a file can run code that is inside it."""

from __future__ import annotations

import ast
import json
import re
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any

from modelyard_artifact.inspection import pickles

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNS_CODE = frozenset(
    (
        "elf",
        "hdf5",
        "keras",
        "mach-o",
        "pe",
        "pickle",
        "python",
        "python-bytecode",
        "pytorch",
        "script",
        "tensorflow",
        "torchscript",
    )
)
"""Formats whose loading can run code that is inside the file; of archives and arrays it depends on what is in them."""

UNREADABLE = frozenset(("7z", "cab", "lz4", "rar", "zstd"))
"""Archives that nothing here can open."""

_MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x93NUMPY", "npy"),
    (b"GGUF", "gguf"),
    (b"PAR1", "parquet"),
    (b"ARROW1", "arrow"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x5d\x00\x00", "lzma"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "rar"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"MSCF", "cab"),
    (b"\x7fELF", "elf"),
    (b"MZ", "pe"),
    (b"\xfe\xed\xfa\xce", "mach-o"),
    (b"\xfe\xed\xfa\xcf", "mach-o"),
    (b"\xce\xfa\xed\xfe", "mach-o"),
    (b"\xcf\xfa\xed\xfe", "mach-o"),
    (b"\x89PNG\r\n\x1a\n", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"%PDF-", "pdf"),
    (b"#!", "script"),
)
_HEAD_BYTES = 2**16
_TEXT_BYTES = 2**20
_MAX_JSON_BYTES = 16 * 2**20
_TAR_MARK = slice(257, 262)
_PYC_MARK = b"\x0d\x0d\x0a"
# ONNX's ModelProto: number of a field -> its wire type.
_ONNX_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_ONNX_GRAPH, _ONNX_OPSETS = 7, 8
_CUT_OFF = -1
_SAVED_MODEL = re.compile(rb"\x08\x01\x12")
_SAVED_MODEL_WORDS = (b"serving_default", b"saved_model", b"tensorflow")
_YAML = re.compile(r"^(---|[\w\"'.-]+\s*:(\s|$))", re.MULTILINE)


def detect(file: IO[bytes], *, whole: bool = True) -> str:
    """Name the format of a file; `whole` says that all of it is there. The file is read from its beginning."""
    head = _head(file)
    if not head:
        return "empty"
    known = next((name for magic, name in _MAGIC if head.startswith(magic)), "")
    if known == "zip":
        return _kind_of_zip(file) if whole else "zip"
    if known:
        return known
    if head[2:4] == b"\r\n" and head[1:4] in {_PYC_MARK, b"\x0e\r\n", b"\x0f\r\n"}:
        return "python-bytecode"
    if head[_TAR_MARK] == b"ustar":
        return "tar"
    if _is_zlib(head):
        return "zlib"
    if _is_safetensors(file, head):
        return "safetensors"
    if _is_onnx(file, whole=whole):
        return "onnx"
    if pickles.looks_like(file):
        return "pickle"
    if _SAVED_MODEL.match(head) and any(word in head for word in _SAVED_MODEL_WORDS):
        return "tensorflow"
    return _kind_of_text(file)


def _head(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_HEAD_BYTES)


def _kind_of_zip(file: IO[bytes]) -> str:
    """Which of the formats that are zips it is; `zip` if it is none, or cannot be read."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if "schema.json" in names and _json_of(archive, "schema.json").get("_skops_version"):
                return "skops"
            if "config.json" in names and "keras_version" in _json_of(archive, "metadata.json"):
                return "keras"
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RuntimeError, OSError, zlib.error):
        return "zip"
    if any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names):
        return "torchscript"
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "pytorch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "zip"


def _json_of(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    with archive.open(name) as member:
        data = member.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
        return {}
    value = json.loads(data)
    return value if isinstance(value, dict) else {}


def _is_zlib(head: bytes) -> bool:
    if len(head) < 8 or head[0] != 0x78 or int.from_bytes(head[:2], "big") % 31:
        return False
    try:
        zlib.decompressobj().decompress(head, 1024)
    except zlib.error:
        return False
    return True


def _is_safetensors(file: IO[bytes], head: bytes) -> bool:
    """A length of eight bytes, then so many bytes of a JSON object of tensors."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    length = int.from_bytes(head[:8], "little")
    if length > 100 * 2**20:
        return False
    file.seek(8)
    data = file.read(min(length, _MAX_JSON_BYTES))
    if len(data) < length:
        return b'"data_offsets"' in data
    try:
        header = json.loads(data)
    except (ValueError, RecursionError):
        return False
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    return all(
        isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= set(entry) for entry in tensors
    )


def _is_onnx(file: IO[bytes], *, whole: bool) -> bool:
    """Whether every field of the outermost message is one of ModelProto; only those are looked at."""
    size = file.seek(0, 2)
    file.seek(0)
    seen: set[int] = set()
    for number, wire, length in _fields(file):
        if _ONNX_FIELDS.get(number) != wire:
            return False
        seen.add(number)
        if length > size - file.tell():
            return not whole and _ONNX_GRAPH in seen and 1 in seen
        file.seek(length, 1)
    return file.tell() == size and {_ONNX_GRAPH, _ONNX_OPSETS} <= seen


def _fields(file: IO[bytes]) -> Iterator[tuple[int, int, int]]:
    """Number, wire type, and bytes still to skip of each field."""
    while (key := _varint(file)) is not None:
        number, wire = key >> 3, key & 7
        length = 0
        if wire in {0, 2}:
            value = _varint(file)
            if value is None:
                yield number, _CUT_OFF, 0
                return
            length = value if wire == 2 else 0
        yield number, wire, length


def _varint(file: IO[bytes]) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _kind_of_text(file: IO[bytes]) -> str:
    file.seek(0)
    data = file.read(_TEXT_BYTES + 1)
    try:
        # A character may be cut at the end of what was read.
        text = (
            data[:_TEXT_BYTES].decode()
            if len(data) <= _TEXT_BYTES
            else data[: _TEXT_BYTES - 4].decode("utf-8", "ignore")
        )
    except UnicodeDecodeError:
        return "other"
    if "\0" in text:
        return "other"
    if text.lstrip()[:1] in {"{", "["}:
        return "json" if _is_json(file, data) else "text"
    if _is_python(text):
        return "python"
    return "yaml" if _YAML.search(text[:_HEAD_BYTES]) else "text"


def _is_json(file: IO[bytes], data: bytes) -> bool:
    if len(data) > _TEXT_BYTES:
        file.seek(0)
        data = file.read(_MAX_JSON_BYTES + 1)
        if len(data) > _MAX_JSON_BYTES:
            return True  # by its first character; nothing depends on it
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


_PYTHON_STATEMENTS = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.With, ast.For, ast.While,
    ast.If, ast.Try, ast.Return, ast.Raise, ast.Delete, ast.Global, ast.Assert,
)  # fmt: skip


def _is_python(text: str) -> bool:
    """Whether it parses, and does or defines something: prose may parse too, and so does YAML."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return bool(
            re.search(r"^(import \w|from \w[\w.]* import |def \w+\(|class \w+[(:])", text, re.MULTILINE)
        )
    return any(
        isinstance(statement, _PYTHON_STATEMENTS)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, (ast.Call, ast.Await)))
        for statement in module.body
    )
