"""Zip files from anywhere, unpacked only after they were found harmless.

Everything that can be told from the headers is told before the first byte is unpacked: paths, links, sizes, overlaps,
encodings. Then the members are unpacked into a folder that nobody looks into before the last one was found to be as long as it
said and to have its checksum. Why an archive is refused says one `ArchiveRefused`, with the name of the member.
"""

from __future__ import annotations

import shutil
import unicodedata
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from modelyard._zip_records import DEFLATED, ArchiveRefused, Member, read_members

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["ArchiveLimits", "ArchiveRefused", "Member", "check", "unpack"]

_CHUNK_BYTES = 1024 * 1024
_JUNK_FOLDER = "__MACOSX"
_MAX_NAME_BYTES = 255


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may cost.

    `ratio` is the unpacked size over the packed one, and counts only from `ratio_free_bytes` on: a small file of zeros is no bomb.
    """

    files: int = 100_000
    total_bytes: int = 256 * 2**30
    path_bytes: int = 1_024
    depth: int = 64
    ratio: int = 200
    ratio_free_bytes: int = 256 * 2**20


DEFAULT_LIMITS = ArchiveLimits()


def check(archive: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> tuple[Member, ...]:
    """Look at the headers of a zip and return its files; nothing is unpacked.

    Raises:
        ArchiveRefused: something in it is hostile or damaged.
    """
    with archive.open("rb") as file:
        return _checked(file, limits)


def unpack(archive: Path, folder: Path, limits: ArchiveLimits = DEFAULT_LIMITS) -> tuple[Member, ...]:
    """Unpack a zip into a folder that does not exist yet; if it is refused, the folder does not exist afterwards either.

    What macOS adds for itself (`__MACOSX/`) is left out.

    Raises:
        ArchiveRefused: something in it is hostile or damaged.
        FileExistsError: the folder exists.
    """
    with archive.open("rb") as file:
        members = _checked(file, limits)
        folder.mkdir(mode=0o700)
        try:
            for member in members:
                target = folder / member.path
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                with target.open("xb") as out:
                    for piece in _content(file, member):
                        out.write(piece)
        except BaseException:
            shutil.rmtree(folder)
            raise
    return members


def _checked(file: IO[bytes], limits: ArchiveLimits) -> tuple[Member, ...]:
    members = read_members(file, most=limits.files * 2)
    for member in members:
        _check_path(member, limits)
    files = [member for member in members if not member.is_folder]
    if not files:
        raise ArchiveRefused("holds no files")
    if len(files) > limits.files:
        raise ArchiveRefused(f"holds {len(files):,} files; at most {limits.files:,} are taken")
    _check_collisions(members)
    _check_sizes(files, limits)
    return tuple(member for member in files if member.path.partition("/")[0] != _JUNK_FOLDER)


def _check_path(member: Member, limits: ArchiveLimits) -> None:
    path = member.path
    problem = ""
    if path.startswith("/"):
        problem = "has an absolute path"
    elif "\\" in path:
        problem = "has a backslash in its path"
    elif len(path) > 1 and path[1] == ":" and path[0].isalpha():
        problem = "has a drive letter in its path"
    elif any(unicodedata.category(character) in {"Cc", "Cs"} for character in path):
        problem = "has a control character in its path"
    elif ".." in path.split("/"):
        problem = "leaves the archive by '..'"
    elif any(part in {"", "."} for part in path.split("/")):
        problem = "has an empty or '.' part in its path"
    elif len(path.encode()) > limits.path_bytes:
        problem = f"has a path of more than {limits.path_bytes} bytes"
    elif any(len(part.encode()) > _MAX_NAME_BYTES for part in path.split("/")):
        problem = f"has a name of more than {_MAX_NAME_BYTES} bytes"
    elif path.count("/") >= limits.depth:
        problem = f"lies more than {limits.depth} folders deep"
    elif not member.is_regular:
        problem = "is a link, device or pipe"
    if problem:
        raise ArchiveRefused(problem, member.name)


def _check_collisions(members: Sequence[Member]) -> None:
    """Refuse paths that would be one file here or on another system, and files where a folder has to be."""
    seen: dict[str, Member] = {}
    folders: dict[str, Member] = {}
    for member in members:
        key = _key(member.path)
        other = seen.setdefault(key, member)
        if other is not member and not (other.is_folder and member.is_folder and other.path == member.path):
            raise ArchiveRefused(_collision(member, other), member.name)
        parts = key.split("/")
        for end in range(1, len(parts)):
            folders.setdefault("/".join(parts[:end]), member)
    for key, inside in folders.items():
        blocking = seen.get(key)
        if blocking and not blocking.is_folder:
            raise ArchiveRefused(f"is a file, but {inside.name!r} needs a folder there", blocking.name)


def _collision(member: Member, other: Member) -> str:
    if member.name == other.name:
        return "is there twice"
    if member.path == other.path:
        return f"and {other.name!r} are one name in Unicode form NFC"
    return f"and {other.name!r} differ only in case, which is one file on some systems"


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _check_sizes(files: Sequence[Member], limits: ArchiveLimits) -> None:
    size = packed = 0
    for member in files:
        size += member.size
        packed += member.packed_size
        if size > limits.total_bytes:
            raise ArchiveRefused(
                f"makes the archive more than {limits.total_bytes:,} bytes unpacked", member.name
            )
    if size > limits.ratio_free_bytes and size > limits.ratio * max(packed, 1):
        raise ArchiveRefused(
            f"unpacks {packed:,} bytes to {size:,}, more than {limits.ratio} times as many: it is taken for a bomb"
        )


def _content(file: IO[bytes], member: Member) -> Iterator[bytes]:
    """The unpacked bytes of a member, never more than it says."""
    made = checksum = 0
    for piece in _inflated(file, member) if member.method == DEFLATED else _stored(file, member):
        made += len(piece)
        if made > member.size:
            raise ArchiveRefused(f"unpacks to more than the {member.size:,} bytes it says", member.name)
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if made != member.size:
        raise ArchiveRefused(f"unpacks to {made:,} bytes, but says {member.size:,}", member.name)
    if checksum != member.crc:
        raise ArchiveRefused("is damaged: its checksum is another one", member.name)


def _stored(file: IO[bytes], member: Member) -> Iterator[bytes]:
    file.seek(member.offset)
    left = member.packed_size
    while left:
        data = file.read(min(_CHUNK_BYTES, left))
        if not data:
            raise ArchiveRefused("is cut off", member.name)
        left -= len(data)
        yield data


def _inflated(file: IO[bytes], member: Member) -> Iterator[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for packed in _stored(file, member):
            data = packed
            while data and not inflater.eof:
                yield inflater.decompress(data, _CHUNK_BYTES)
                data = inflater.unconsumed_tail
            if inflater.eof and (data or inflater.unused_data):
                raise ArchiveRefused("has bytes after the end of its compressed data", member.name)
        while not inflater.eof and (piece := inflater.decompress(inflater.unconsumed_tail, _CHUNK_BYTES)):
            yield piece
    except zlib.error as error:
        raise ArchiveRefused(f"is damaged: {error}", member.name) from error
    if not inflater.eof:
        raise ArchiveRefused("is cut off", member.name)
