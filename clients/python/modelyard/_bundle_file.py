"""The file of a bundle: written member by member, and read only after everything in it was found to be as it says.

A bundle is a zip whose members are not compressed, so that a blob is uploaded from where it lies in the file, and nothing can unpack
to more than is there.
"""

from __future__ import annotations

import hashlib
import json
import stat
import zipfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

from modelyard import archives, bundles
from modelyard._manifest import LocalFile
from modelyard._zip_records import STORED
from modelyard.archives import ArchiveLimits, ArchiveRefused, Member
from modelyard.errors import DigestMismatch, InvalidArgument, SignatureInvalid
from modelyard.types import FileEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from modelyard.auditing import AuditKeys
    from modelyard.bundles import BundledVersion, BundleManifest, BundleSignature, VersionDocument

MANIFEST, SIGNATURE, BLOBS = "bundle.json", "bundle.sig", "blobs/"
DOCUMENT_BYTES = 256 * 2**20
"""The largest document of a version, or list of files, that is read."""
_SIGNATURE_BYTES = 64 * 2**10
_PIECE_BYTES = 1024 * 1024
# Nothing is unpacked, so what there is room for in the file is what it can cost.
_LIMITS = ArchiveLimits(files=1_000_000, total_bytes=2**63, path_bytes=128, depth=2)
_TIME = (1980, 1, 1, 0, 0, 0)


class BundleWriter:
    """Writes a bundle beside its place, where it appears complete or not at all. Blocks; one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.part")
        self._zip = zipfile.ZipFile(self._draft, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._blobs: set[str] = set()
        self.blob_bytes = 0

    def add(self, name: str, pieces: Iterable[bytes], size: int = 0) -> FileEntry:
        """Add a member; `size` is needed where it may be more than 2 GiB."""
        info = zipfile.ZipInfo(name, _TIME)  # the same content is the same bundle, whenever it is written
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        info.create_system = 3
        info.file_size = size
        digest, written = hashlib.sha256(), 0
        with self._zip.open(info, "w") as member:
            for piece in pieces:
                member.write(piece)
                digest.update(piece)
                written += len(piece)
        return FileEntry(name, written, digest.hexdigest())

    def add_blobs(self, folder: Path, files: Iterable[FileEntry]) -> None:
        """Add the contents of files in a folder that are not there yet.

        Raises:
            DigestMismatch: a file was changed since it was downloaded.
        """
        for file in files:
            if file.sha256 in self._blobs:
                continue
            added = self.add(f"{BLOBS}{file.sha256}", _pieces(folder / file.path), file.size)
            if (added.sha256, added.size) != (file.sha256, file.size):
                raise DigestMismatch(f"{folder / file.path} changed after it was downloaded")
            self._blobs.add(file.sha256)
            self.blob_bytes += file.size

    def publish(self) -> None:
        """Let the bundle appear."""
        self._zip.close()
        self._draft.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()
        self._draft.unlink(missing_ok=True)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


@dataclass(frozen=True)
class Bundle:
    """A bundle whose documents are as its manifest says.

    Attributes:
        path: The file.
        manifest: What is in it.
        signature: Who is said to vouch for it; counts after `check_signature`.
        blobs: Size of each blob, by SHA-256.
        members: Where everything lies in the file, by name.
        signed: What was signed, and the signature.
    """

    path: Path
    manifest: BundleManifest
    signature: BundleSignature
    blobs: Mapping[str, int]
    members: Mapping[str, Member]
    signed: tuple[str, str]

    def check_signature(self, keys: AuditKeys) -> None:
        """Check that one of these keys vouches for the bundle.

        Raises:
            SignatureInvalid: none does.
        """
        statement, signature = self.signed
        problem = keys.refuse("the bundle", self.signature.key_id, signature, statement.encode())
        if problem:
            raise SignatureInvalid(problem, metadata={"problem": problem})

    def check_blobs(self, tell: Callable[[int], None]) -> None:
        """Check the content of every blob; `tell` learns of each piece that was read.

        Raises:
            DigestMismatch: one is not what its name says.
        """
        with self.path.open("rb") as file:
            for sha256 in self.blobs if self.manifest.embedded else ():
                digest = hashlib.sha256()
                for piece in _content(file, self.members[BLOBS + sha256]):
                    digest.update(piece)
                    tell(len(piece))
                if digest.hexdigest() != sha256:
                    raise DigestMismatch(
                        f"{self.path}: blob {sha256} has other content than its name says",
                        metadata={"expected": sha256, "actual": digest.hexdigest()},
                    )

    def document(self, version: BundledVersion) -> VersionDocument:
        """What is told of a version."""
        return bundles.parse_document(self._read(version.document, DOCUMENT_BYTES), version)

    def files(self, version: BundledVersion) -> tuple[FileEntry, ...]:
        """The files of a version's artifact."""
        return bundles.parse_artifact(self._read(version.artifact, DOCUMENT_BYTES), version)

    def local_files(self, version: BundledVersion) -> list[LocalFile]:
        """The files of a version's artifact, where they lie in the bundle."""
        return [
            LocalFile(str(self.path), file, self.members[BLOBS + file.sha256].offset)
            for file in self.files(version)
        ]

    def _read(self, name: str, most: int) -> bytes:
        with self.path.open("rb") as file:
            return _whole(file, self.members, name, most)


def open_bundle(path: Path) -> Bundle:
    """Read a bundle and check all of it but its signature and the content of its blobs.

    Raises:
        ArchiveRefused: the archive is hostile or damaged.
        DigestMismatch: a document is not what the manifest says, or the manifest not what was signed.
        InvalidArgument: something in it contradicts itself.
    """
    members = {member.name: member for member in archives.check(path, _LIMITS)}
    for member in members.values():
        if member.method != STORED:
            raise ArchiveRefused("is compressed; members of bundles are not", member.name)
    with path.open("rb") as file:
        text = _text(_whole(file, members, MANIFEST, bundles.MANIFEST_BYTES), MANIFEST)
        signed = _signed(_text(_whole(file, members, SIGNATURE, _SIGNATURE_BYTES), SIGNATURE))
        signature = bundles.parse_statement(signed[0])
        if signature.bundle != bundles.bundle_digest(text):
            raise DigestMismatch(f"{path}: {MANIFEST} is not what was signed")
        manifest = bundles.parse_manifest(text)
        for document in manifest.documents:
            _check_document(file, members, document)
    bundle = Bundle(path, manifest, signature, {}, members, signed)
    blobs = _blobs(bundle)
    _check_members(bundle, blobs)
    return Bundle(path, manifest, signature, blobs, members, signed)


def _signed(text: str) -> tuple[str, str]:
    try:
        told = json.loads(text)
        statement, signature = told["statement"], told["signature"]
    except (ValueError, TypeError, KeyError, RecursionError):
        statement = signature = None
    if not isinstance(statement, str) or not isinstance(signature, str):
        raise InvalidArgument(f"{SIGNATURE}: is no statement with a signature")
    return statement, signature


def _blobs(bundle: Bundle) -> dict[str, int]:
    """The blobs of all artifacts, while every document is read once."""
    blobs: dict[str, int] = {}
    for version in bundle.manifest.versions:
        bundle.document(version)
        for file in bundle.files(version):
            if blobs.setdefault(file.sha256, file.size) != file.size:
                raise InvalidArgument(f"{version.artifact}: blob {file.sha256} has another size elsewhere")
    return blobs


def _check_members(bundle: Bundle, blobs: Mapping[str, int]) -> None:
    """Refuse what is missing, and what nothing speaks of."""
    members = bundle.members
    wanted = {MANIFEST, SIGNATURE, *(document.path for document in bundle.manifest.documents)}
    if bundle.manifest.embedded:
        wanted |= {BLOBS + sha256 for sha256 in blobs}
    if missing := wanted - set(members):
        raise ArchiveRefused("is missing", min(missing))
    if extra := set(members) - wanted:
        raise ArchiveRefused("is not in the manifest", min(extra))
    for sha256, size in blobs.items() if bundle.manifest.embedded else ():
        if members[BLOBS + sha256].size != size:
            raise ArchiveRefused(f"does not have the {size:,} bytes that it should have", BLOBS + sha256)


def _check_document(file: IO[bytes], members: Mapping[str, Member], document: FileEntry) -> None:
    content = _whole(file, members, document.path, DOCUMENT_BYTES)
    actual = hashlib.sha256(content).hexdigest()
    if (actual, len(content)) != (document.sha256, document.size):
        raise DigestMismatch(
            f"{document.path} is not what the manifest says",
            metadata={"expected": document.sha256, "actual": actual},
        )


def _whole(file: IO[bytes], members: Mapping[str, Member], name: str, most: int) -> bytes:
    member = members.get(name)
    if member is None:
        raise ArchiveRefused("is missing", name)
    if member.size > most:
        raise ArchiveRefused(f"has {member.size:,} bytes; {most:,} are the most", name)
    return b"".join(_content(file, member))


def _content(file: IO[bytes], member: Member) -> Iterator[bytes]:
    file.seek(member.offset)
    left = member.size
    while left:
        piece = file.read(min(_PIECE_BYTES, left))
        if not piece:
            raise ArchiveRefused("is cut off", member.name)
        left -= len(piece)
        yield piece


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{name}: is not UTF-8") from error
