"""A zip written from front to back: stored, UTF-8 names, one fixed time, the same bytes every time. Pure.

Sizes and checksum follow each file in a data descriptor, because they are known only after it was read once. Numbers that
do not fit into 32 bits go into the zip64 fields, in a file only where they are needed.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

_VERSION = 20
_VERSION_ZIP64 = 45
_FLAGS = 0x0808  # sizes follow the file; names are UTF-8
_STORED = 0
_TIME, _DATE = 0, 0x21  # 1980-01-01 00:00, the first time that a zip can tell
_MODE = 0o100644 << 16
_UNIX = 3 << 8
_MAX32 = 0xFFFFFFFF
_MAX16 = 0xFFFF


@dataclass(slots=True)
class _Entry:
    name: bytes
    offset: int
    zip64: bool
    checksum: int = 0
    size: int = 0


class ZipWriter:
    """Says which bytes come around the contents; the caller sends those itself."""

    def __init__(self) -> None:
        self._offset = 0
        self._entry: _Entry | None = None
        self._directory = bytearray()
        self._count = 0

    def begin(self, name: str, size: int) -> bytes:
        """What comes before a file of this size (bytes)."""
        entry = self._entry = _Entry(name.encode(), self._offset, size >= _MAX32)
        size_now = _MAX32 if entry.zip64 else 0
        extra = struct.pack("<HHQQ", 1, 16, 0, 0) if entry.zip64 else b""
        version = _VERSION_ZIP64 if entry.zip64 else _VERSION
        fixed = (b"PK\x03\x04", version, _FLAGS, _STORED, _TIME, _DATE, 0, size_now, size_now)
        header = struct.pack("<4sHHHHHIIIHH", *fixed, len(entry.name), len(extra)) + entry.name + extra
        self._offset += len(header)
        return header

    def add(self, content: bytes) -> None:
        """Notes the next bytes of the file."""
        entry = self._current()
        entry.checksum = zlib.crc32(content, entry.checksum)
        entry.size += len(content)
        self._offset += len(content)

    def end(self) -> bytes:
        """What comes after the file."""
        entry, self._entry = self._current(), None
        form = "<4sIQQ" if entry.zip64 else "<4sIII"
        descriptor = struct.pack(form, b"PK\x07\x08", entry.checksum, entry.size, entry.size)
        self._offset += len(descriptor)
        self._directory += _directory_entry(entry)
        self._count += 1
        return descriptor

    def close(self) -> bytes:
        """What comes after the last file."""
        start, size, count = self._offset, len(self._directory), self._count
        end = bytes(self._directory)
        if count >= _MAX16 or start >= _MAX32 or size >= _MAX32:
            version = (_UNIX | _VERSION_ZIP64, _VERSION_ZIP64)
            end += struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, *version, 0, 0, count, count, size, start)
            end += struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
        count, size, start = min(count, _MAX16), min(size, _MAX32), min(start, _MAX32)
        return end + struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, size, start, 0)

    def _current(self) -> _Entry:
        if self._entry is None:
            raise ValueError("no file was begun")
        return self._entry


def _directory_entry(entry: _Entry) -> bytes:
    large = b""
    size, offset = entry.size, entry.offset
    if entry.zip64:
        large += struct.pack("<QQ", size, size)
        size = _MAX32
    if offset >= _MAX32:
        large += struct.pack("<Q", offset)
        offset = _MAX32
    extra = struct.pack("<HH", 1, len(large)) + large if large else b""
    version = _VERSION_ZIP64 if large else _VERSION
    fixed = (
        b"PK\x01\x02",
        _UNIX | version,
        version,
        _FLAGS,
        _STORED,
        _TIME,
        _DATE,
        entry.checksum,
        size,
        size,
    )
    lengths = (len(entry.name), len(extra), 0, 0, 0, _MODE, offset)
    return struct.pack("<4sHHHHHHIIIHHHHHII", *fixed, *lengths) + entry.name + extra
