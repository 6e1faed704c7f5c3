"""The records of a zip file, read strictly: two programs must not be able to see different files in one archive.

The standard library's reader is lenient where archives of attackers differ from others: it takes data before and after, records
that contradict each other, members that overlap, names in unknown encodings. Here each of these is a reason to refuse.
"""

from __future__ import annotations

import os
import stat
import struct
import unicodedata
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from modelyard.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

STORED, DEFLATED = 0, 8

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR64 = struct.Struct("<4sIQI")
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF
_ENCRYPTED, _DESCRIPTOR, _PATCH, _STRONG, _UTF8, _MASKED = 0x1, 0x8, 0x20, 0x40, 0x800, 0x2000
_ZIP64_FIELD, _UNICODE_PATH_FIELD, _AES_FIELD = 0x0001, 0x7075, 0x9901
_MAX_CENTRAL_BYTES = 256 * 2**20


class ArchiveRefused(InvalidArgument):
    """An archive is hostile or damaged; `member` names what in it, empty for the archive as a whole."""

    def __init__(self, problem: str, member: str = "") -> None:
        what = f"member {member!r} of the archive" if member else "the archive"
        super().__init__(f"{what} {problem}", metadata={"field": "path", "member": member})
        self.member = member
        self.problem = problem


@dataclass(frozen=True)
class Member:
    """A file or folder in the archive: where its packed bytes begin and how many there are."""

    name: str
    size: int
    packed_size: int
    method: int
    crc: int
    mode: int
    header: int
    offset: int

    @property
    def is_folder(self) -> bool:
        """Whether it only makes a folder."""
        return self.name.endswith("/")

    @property
    def path(self) -> str:
        """The name in Unicode form NFC, without the slash that marks a folder."""
        return unicodedata.normalize("NFC", self.name.removesuffix("/"))

    @property
    def is_regular(self) -> bool:
        """Whether the system that packed it saw a regular file or a folder, or said nothing."""
        return stat.S_IFMT(self.mode) in {0, stat.S_IFREG, stat.S_IFDIR}


@dataclass(frozen=True)
class _Directory:
    offset: int
    size: int
    count: int


def read_members(file: IO[bytes], *, most: int) -> tuple[Member, ...]:
    """Read every member of a zip.

    Raises:
        ArchiveRefused: it is no zip, contradicts itself, is encrypted, or has more than `most` members.
    """
    length = file.seek(0, os.SEEK_END)
    directory = _find_directory(file, length)
    if directory.count > most:
        raise ArchiveRefused(f"has {directory.count:,} members; at most {most:,} are taken")
    if directory.size > _MAX_CENTRAL_BYTES:
        raise ArchiveRefused(f"has a directory of more than {_MAX_CENTRAL_BYTES:,} bytes")
    file.seek(directory.offset)
    central = _read(file, directory.size)
    members = tuple(_with_data(file, member, flags) for member, flags in _entries(central, directory.count))
    _check_layout(members, directory.offset)
    return members


def _find_directory(file: IO[bytes], length: int) -> _Directory:
    start = max(0, length - _END.size - _MAX16)
    file.seek(start)
    tail = _read(file, length - start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise ArchiveRefused("is no zip file, or is cut off: its end is missing")
    _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise ArchiveRefused("has data after its end")
    if disk not in {0, _MAX16} or first_disk not in {0, _MAX16} or here != count:
        raise ArchiveRefused("is one part of several")
    end = start + at
    directory = _Directory(offset, size, count)
    large = _find_directory64(file, end)
    if large:
        wide, end = large
        for small, field, limit in (
            (count, "count", _MAX16),
            (size, "size", _MAX32),
            (offset, "offset", _MAX32),
        ):
            if small not in {limit, getattr(wide, field)}:
                raise ArchiveRefused(
                    f"contradicts itself: its two ends give different values for the {field}"
                )
        directory = wide
    elif count == _MAX16 or _MAX32 in {size, offset}:
        raise ArchiveRefused("says that it is a zip64, but lacks what that needs")
    if directory.offset + directory.size != end:
        raise ArchiveRefused("has data before its beginning or around its directory")
    return directory


def _find_directory64(file: IO[bytes], end: int) -> tuple[_Directory, int] | None:
    """The wide form of the end, and where it begins."""
    if end < _LOCATOR64.size:
        return None
    file.seek(end - _LOCATOR64.size)
    signature, disk, position, disks = _LOCATOR64.unpack(_read(file, _LOCATOR64.size))
    if signature != b"PK\x06\x07":
        return None
    if disk or disks > 1 or position + _END64.size > end - _LOCATOR64.size:
        raise ArchiveRefused("has a zip64 end that points nowhere")
    file.seek(position)
    signature, length, _, _, disk, first, here, count, size, offset = _END64.unpack(_read(file, _END64.size))
    if signature != b"PK\x06\x06" or position + 12 + length != end - _LOCATOR64.size:
        raise ArchiveRefused("has a zip64 end that points nowhere")
    if disk or first or here != count:
        raise ArchiveRefused("is one part of several")
    return _Directory(offset, size, count), position


def _entries(central: bytes, count: int) -> Iterator[tuple[Member, int]]:
    at = 0
    for _ in range(count):
        if len(central) - at < _CENTRAL.size or central[at : at + 4] != b"PK\x01\x02":
            raise ArchiveRefused("has fewer members than it says")
        fields = _CENTRAL.unpack_from(central, at)
        name_length, extra_length, comment_length = fields[10:13]
        body = at + _CENTRAL.size
        at = body + name_length + extra_length + comment_length
        if at > len(central):
            raise ArchiveRefused("has a directory that is cut off")
        raw = central[body : body + name_length]
        extra = central[body + name_length : body + name_length + extra_length]
        yield _member(fields, raw, extra), fields[3]
    if at != len(central):
        raise ArchiveRefused("has more members than it says")


def _member(fields: tuple[int, ...], raw: bytes, extra: bytes) -> Member:
    _, _, _, flags, method, _, _, crc, packed, size, _, _, _, disk, _, attributes, header = fields
    name = _name(raw, flags)
    if flags & (_ENCRYPTED | _STRONG | _MASKED):
        raise ArchiveRefused("is encrypted", name)
    if flags & _PATCH or method not in {STORED, DEFLATED}:
        raise ArchiveRefused(
            f"is packed by method {method}; only stored and deflated members are taken", name
        )
    if disk not in {0, _MAX16}:
        raise ArchiveRefused("lies in another part of the archive", name)
    extras = _extras(extra, name)
    if _AES_FIELD in extras:
        raise ArchiveRefused("is encrypted", name)
    _check_unicode_path(extras.get(_UNICODE_PATH_FIELD), raw, name)
    size, packed, header = _wide(extras.get(_ZIP64_FIELD), (size, packed, header), name)
    if method == STORED and size != packed:
        raise ArchiveRefused("is not compressed, but gives two sizes", name)
    if name.endswith("/") and size:
        raise ArchiveRefused("is a folder with content", name)
    return Member(name, size, packed, method, crc, attributes >> 16, header, 0)


def _name(raw: bytes, flags: int) -> str:
    shown = raw.decode("ascii", "backslashreplace")
    if not raw:
        raise ArchiveRefused("has a member without a name")
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        problem = (
            "has a name that is not UTF-8" if flags & _UTF8 else "has a name in an encoding it does not tell"
        )
        raise ArchiveRefused(problem, shown) from None
    if "\0" in name:
        raise ArchiveRefused("has a control character in its path", shown)
    return name


def _extras(extra: bytes, name: str) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while len(extra) - at >= 4:
        kind, length = struct.unpack_from("<2H", extra, at)
        if at + 4 + length > len(extra):
            raise ArchiveRefused("has a header that is cut off", name)
        if kind in found and kind in {_ZIP64_FIELD, _UNICODE_PATH_FIELD}:
            raise ArchiveRefused("contradicts itself: a field of its header is there twice", name)
        found[kind] = extra[at + 4 : at + 4 + length]
        at += 4 + length
    return found


def _check_unicode_path(field: bytes | None, raw: bytes, name: str) -> None:
    if field is None:
        return
    if len(field) < 5 or field[0] != 1 or struct.unpack_from("<I", field, 1)[0] != zlib.crc32(raw):
        return  # says itself that it belongs to another name; every reader drops it then
    if field[5:] != name.encode():
        raise ArchiveRefused("contradicts itself: its header gives two names", name)


def _wide(field: bytes | None, values: tuple[int, int, int], name: str) -> tuple[int, int, int]:
    """Sizes and offset, those that did not fit taken from the zip64 field."""
    wanted = [value == _MAX32 for value in values]
    if not any(wanted):
        return values
    if field is None or len(field) < 8 * sum(wanted):
        raise ArchiveRefused("says that it is a zip64 member, but lacks what that needs", name)
    wide = iter(struct.unpack_from(f"<{sum(wanted)}Q", field))
    size, packed, header = (
        next(wide) if is_wide else value for is_wide, value in zip(wanted, values, strict=True)
    )
    return size, packed, header


def _with_data(file: IO[bytes], member: Member, flags: int) -> Member:
    """The member with the place of its data, after its own header was found to say the same as the directory."""
    file.seek(member.header)
    signature, _, local_flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(
        _read(file, _LOCAL.size)
    )
    if signature != b"PK\x03\x04":
        raise ArchiveRefused("is not where the directory says", member.name)
    raw = _read(file, name_length)
    extras = _extras(_read(file, extra_length), member.name)
    if _name(raw, local_flags) != member.name or method != member.method:
        raise ArchiveRefused("contradicts itself: its own header and the directory differ", member.name)
    if (local_flags ^ flags) & (_ENCRYPTED | _STRONG | _MASKED):
        raise ArchiveRefused("is encrypted", member.name)
    _check_unicode_path(extras.get(_UNICODE_PATH_FIELD), raw, member.name)
    if not local_flags & _DESCRIPTOR or size or packed or crc:
        size, packed, _ = _wide(extras.get(_ZIP64_FIELD), (size, packed, 0), member.name)
        described = local_flags & _DESCRIPTOR and not (size or packed)
        if (size, packed) != (member.size, member.packed_size) and not described:
            raise ArchiveRefused(
                "contradicts itself: its own header and the directory give two sizes", member.name
            )
    offset = member.header + _LOCAL.size + name_length + extra_length
    return Member(
        member.name, member.size, member.packed_size, method, member.crc, member.mode, member.header, offset
    )


def _check_layout(members: Sequence[Member], end: int) -> None:
    """Refuse members that share bytes: some of the strongest bombs are made of them."""
    ordered = sorted(members, key=lambda member: member.header)
    limits = [member.header for member in ordered[1:]] + [end]
    if ordered and ordered[0].header != 0:
        raise ArchiveRefused("has data before its beginning or around its directory")
    for member, limit in zip(ordered, limits, strict=False):  # without members there is a limit too many
        if member.offset + member.packed_size > limit:
            raise ArchiveRefused("overlaps another member, or the directory", member.name)


def _read(file: IO[bytes], length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise ArchiveRefused("is cut off")
    return data
