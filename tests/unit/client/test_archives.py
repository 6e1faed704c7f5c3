"""Hostile zips: each trick is refused with its reason, and nothing is left behind."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.archives import ArchiveLimits, ArchiveRefused, check, unpack

Zip = zipfile.ZipFile


def made(fill: Callable[[Zip], None], **arguments: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **arguments) as archive:  # type: ignore[call-overload]
        fill(archive)
    return out.getvalue()


def of(*names: str) -> bytes:
    """A zip of files with these names, written as they are."""

    def fill(archive: Zip) -> None:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, b"content of " + name.encode("utf-8", "replace"))

    return made(fill)


def with_mode(mode: int) -> bytes:
    def fill(archive: Zip) -> None:
        info = zipfile.ZipInfo("link")
        info.external_attr = mode << 16
        archive.writestr(info, b"/etc/passwd")

    return made(fill)


def patched(data: bytes, old: bytes, new: bytes, count: int = -1) -> bytes:
    assert old in data
    return data.replace(old, new, count)


def set_flags(data: bytes, flags: int) -> bytes:
    """The zip with flags of every member set in both of its headers."""
    changed = bytearray(data)
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = changed.find(mark)
        while start >= 0:
            changed[start + at : start + at + 2] = struct.pack(
                "<H", struct.unpack_from("<H", changed, start + at)[0] | flags
            )
            start = changed.find(mark, start + 4)
    return bytes(changed)


def central(data: bytes, at: int, value: bytes) -> bytes:
    """The zip with bytes of the first entry of its directory replaced."""
    start = data.find(b"PK\x01\x02") + at
    return data[:start] + value + data[start + len(value) :]


def both(data: bytes, at: int, value: bytes) -> bytes:
    """The zip with bytes of the first member replaced in its header (at) and in the directory (two more)."""
    data = data[:at] + value + data[at + len(value) :]
    return central(data, at + 2, value)


def compressed(content: bytes) -> bytes:
    return made(lambda archive: archive.writestr("a", content), compression=zipfile.ZIP_DEFLATED)


def overlapping() -> bytes:
    """Two entries of the directory for one member: the way of the strongest bombs."""
    data = of("a")
    start = data.find(b"PK\x01\x02")
    end = data.find(b"PK\x05\x06")
    entry = data[start:end]
    twin = entry.replace(b"a", b"a", 1)
    tail = bytearray(data[end:])
    struct.pack_into("<2H", tail, 8, 2, 2)
    struct.pack_into("<I", tail, 12, 2 * len(entry))
    return data[:start] + entry + twin + bytes(tail)


def zip64_end_lies() -> bytes:
    data = of("a")
    end = data.find(b"PK\x05\x06")
    start = data.find(b"PK\x01\x02")
    wide = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 7, 7, end - start, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    return data[:end] + wide + locator + data[end:]


def unicode_path_lies() -> bytes:
    field = struct.pack("<BI", 1, zlib.crc32(b"a")) + b"../b"

    def fill(archive: Zip) -> None:
        info = zipfile.ZipInfo("a")
        info.extra = struct.pack("<2H", 0x7075, len(field)) + field
        archive.writestr(info, b"x")

    return made(fill)


def local_name_differs() -> bytes:
    data = of("good.txt")
    at = data.find(b"good.txt")
    return data[:at] + b"evil.txt" + data[at + 8 :]


def wrong_crc() -> bytes:
    return patched(of("a"), b"content of a", b"CONTENT of a")


TRICKS = {
    "traversal": (of("../evil"), "leaves the archive"),
    "traversal inside": (of("a/../../evil"), "leaves the archive"),
    "absolute": (of("/etc/passwd"), "absolute path"),
    "drive": (of("C:/evil"), "drive letter"),
    "drive relative": (of("c:evil"), "drive letter"),
    "backslash": (of("..\\evil"), "backslash"),
    "dot": (of("./a"), "empty or '.' part"),
    "empty part": (of("a//b"), "empty or '.' part"),
    "control": (of("a\nb"), "control character"),
    "escape": (of("a\x1b[2J"), "control character"),
    "long name": (of("x" * 256), "more than 255 bytes"),
    "long path": (of("/".join(["x" * 200] * 6)), "more than 1024 bytes"),
    "deep": (of("a/" * 65 + "b"), "64 folders deep"),
    "link": (with_mode(stat.S_IFLNK | 0o777), "link, device or pipe"),
    "device": (with_mode(stat.S_IFCHR), "link, device or pipe"),
    "pipe": (with_mode(stat.S_IFIFO), "link, device or pipe"),
    "socket": (with_mode(stat.S_IFSOCK), "link, device or pipe"),
    "case": (of("Score.py", "score.py"), "differ only in case"),
    "sharp s": (of("straße", "STRASSE"), "differ only in case"),
    "forms": (of("é", "e\u0301"), "one name in Unicode form NFC"),
    "file and folder": (of("a", "a/b"), "needs a folder there"),
    "file and folder by case": (of("A", "a/b"), "needs a folder there"),
    "encrypted": (set_flags(of("a"), 0x1), "is encrypted"),
    "strongly encrypted": (set_flags(of("a"), 0x40), "is encrypted"),
    "masked": (set_flags(of("a"), 0x2000), "is encrypted"),
    "patch": (set_flags(of("a"), 0x20), "packed by method"),
    "unknown method": (both(of("a"), 8, struct.pack("<H", 97)), "packed by method 97"),
    "lzma": (
        made(lambda archive: archive.writestr("a", b"x"), compression=zipfile.ZIP_LZMA),
        "packed by method 14",
    ),
    "unknown encoding": (patched(of("abc"), b"abc", b"a\xe9c"), "encoding it does not tell"),
    "bad utf-8": (set_flags(patched(of("abc"), b"abc", b"a\xe9c"), 0x800), "not UTF-8"),
    "two names": (unicode_path_lies(), "gives two names"),
    "header differs": (local_name_differs(), "its own header and the directory differ"),
    "size differs": (central(of("a"), 20, struct.pack("<2I", 3, 3)), "give two sizes"),
    "stored with two sizes": (central(of("a"), 24, struct.pack("<I", 9_999)), "gives two sizes"),
    "zip64 without field": (central(of("a"), 24, b"\xff" * 4), "zip64 member, but lacks"),
    "zip64 end lies": (zip64_end_lies(), "contradicts itself"),
    "overlap": (overlapping(), ""),
    "data behind": (of("a") + b"x", "data after its end"),
    "data before": (b"MZ" + of("a"), "data before its beginning"),
    "cut off": (of("a")[:-5], "end is missing"),
    "half": (of("a")[: len(of("a")) // 2], "end is missing"),
    "empty": (b"", "end is missing"),
    "no zip": (b"hello" * 100, "end is missing"),
    "no members": (b"PK\x05\x06" + bytes(18), "holds no files"),
    "no files": (made(lambda archive: archive.mkdir("a")), "holds no files"),
    "fewer members": (patched(of("a"), b"\x01\x00\x01\x00", b"\x02\x00\x02\x00"), "fewer members"),
    "more members": (patched(of("a", "b"), b"\x02\x00\x02\x00", b"\x01\x00\x01\x00"), "more members"),
    "several parts": (patched(of("a"), b"PK\x05\x06\x00\x00", b"PK\x05\x06\x01\x00"), "one part of several"),
    "folder with content": (of("a/"), "folder with content"),
}


@pytest.mark.parametrize(("data", "reason"), TRICKS.values(), ids=TRICKS)
def test_a_trick_is_refused_before_anything_is_written(data: bytes, reason: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(data)
    for look in (lambda: check(archive), lambda: unpack(archive, tmp_path / "out")):
        with pytest.raises(ArchiveRefused) as refused:
            look()
        assert reason in refused.value.problem
        assert refused.value.metadata["field"] == "path"
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_the_same_name_twice(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.write_bytes(of("a", "a"))
    with pytest.raises(ArchiveRefused, match="is there twice") as refused:
        check(archive)
    assert refused.value.member == "a"


def says_less(content: bytes) -> bytes:
    """A member that unpacks to more than it says, in all of its headers."""
    return both(compressed(content), 22, struct.pack("<I", 10))


def damaged() -> bytes:
    data = bytearray(compressed(bytes(range(256)) * 100))
    data[60] ^= 0xFF
    return bytes(data)


LATE = {
    "wrong checksum": (wrong_crc(), "checksum"),
    "says less": (says_less(b"x" * 1_000), "more than the 10 bytes it says"),
    "says more": (
        both(compressed(b"x" * 1_000), 22, struct.pack("<I", 2_000)),
        "unpacks to 1,000 bytes, but says 2,000",
    ),
    "damaged": (damaged(), ""),
}


@pytest.mark.parametrize(("data", "reason"), LATE.values(), ids=LATE)
def test_what_only_unpacking_shows_leaves_nothing_behind(data: bytes, reason: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(data)
    with pytest.raises(ArchiveRefused) as refused:
        unpack(archive, tmp_path / "out")
    assert reason in refused.value.problem
    assert refused.value.member == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_bombs_by_ratio_size_and_count(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(compressed(bytes(1_000_000)))
    assert check(archive)
    with pytest.raises(ArchiveRefused, match="taken for a bomb"):
        check(archive, ArchiveLimits(ratio_free_bytes=100_000))
    with pytest.raises(ArchiveRefused, match="more than 999,999 bytes unpacked"):
        check(archive, ArchiveLimits(total_bytes=999_999))
    archive.write_bytes(of("a", "b", "c"))
    with pytest.raises(ArchiveRefused, match="at most 2 are taken"):
        check(archive, ArchiveLimits(files=2))
    with pytest.raises(ArchiveRefused, match="at most 2 are taken"):
        check(archive, ArchiveLimits(files=1))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_honest_zip_is_unpacked(compression: int, tmp_path: Path) -> None:
    files = {
        "score.py": b"x",
        "größe/日本.bin": bytes(3_000_000),
        "empty": b"",
        "e\u0301": b"nfd",
        "__MACOSX/._a": b"",
    }

    def fill(archive: Zip) -> None:
        archive.mkdir("folder")
        for name, content in files.items():
            archive.writestr(name, content)

    archive = tmp_path / "a.zip"
    archive.write_bytes(made(fill, compression=compression))
    members = unpack(archive, tmp_path / "out")
    assert {member.path for member in members} == {
        "score.py",
        "größe/日本.bin",
        "empty",
        "é",
        "__MACOSX/._a",
    } - {"__MACOSX/._a"}
    found = {
        path.relative_to(tmp_path / "out").as_posix(): path
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert found["größe/日本.bin"].read_bytes() == bytes(3_000_000)
    assert found["é"].read_bytes() == b"nfd"


class Unseekable(io.RawIOBase):
    """An output that makes the standard library write sizes behind the data."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.data += data
        return len(data)


def test_a_streamed_zip_and_a_zip64_are_honest_too(tmp_path: Path) -> None:
    out = Unseekable()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        archive.writestr("a", b"x" * 1_000)
        with archive.open("b", "w", force_zip64=True) as member:
            member.write(b"y" * 1_000)
    path = tmp_path / "a.zip"
    path.write_bytes(bytes(out.data))
    unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "b").read_bytes() == b"y" * 1_000
