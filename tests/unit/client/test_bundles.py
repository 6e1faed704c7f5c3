"""Bundles that are as they should be, and every way in which one can be hostile, damaged or signed by somebody else."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from modelyard import _direct, bundles, errors
from modelyard._bundle_file import BundleWriter, open_bundle
from modelyard._bundle_import import names_for
from modelyard._manifest import manifest_digest
from modelyard.archives import ArchiveRefused
from modelyard.auditing import AuditKeys, key_id
from modelyard.bundles import BundledModel, BundledVersion, BundleManifest, BundleSignature
from modelyard.client import Client
from modelyard.types import BlobUrls, FileEntry, MissingBlob, PartUrl, SignedUrl

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
CONTENTS = {"a/model.bin": b"weights" * 100, "b.txt": b"hi", "c.txt": b"hi"}
Parts = dict[str, bytes]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entries() -> list[FileEntry]:
    return [FileEntry(path, len(content), sha256(content)) for path, content in CONTENTS.items()]


def manifest_of(parts: Parts) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(parts["bundle.json"])
    return whole


class Origin:
    """An installation that writes bundles, honest ones and others."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        public = self._key.public_key()
        self.pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        self.key_id = key_id(public.public_bytes_raw())

    def parts(self, **document: Any) -> Parts:
        """All members of an honest bundle, by name."""
        version = BundledVersion("v-1", "m-1", 3, manifest_digest(entries()), "seal")
        told = {"kind": "version", "id": "v-1", "number": "3", "artifactDigest": version.artifact_digest}
        lines = [told | document, {"kind": "approval", "state": "PENDING", "reviews": []}]
        written_out = (f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)
        parts = {
            version.document: "".join(written_out).encode(),
            version.artifact: bundles.artifact_to_json(entries()).encode(),
        }
        manifest = BundleManifest(
            True,
            (BundledModel("m-1", "prod.ml.iris", "irises", {"team": "ml"}, {"champion": 3}),),
            (version,),
            (),
            tuple(FileEntry(name, len(content), sha256(content)) for name, content in parts.items()),
        )
        parts["bundle.json"] = manifest.to_json().encode()
        parts |= {f"blobs/{sha256(content)}": content for content in CONTENTS.values()}
        return self.signed(parts)

    def signed(self, parts: Parts) -> Parts:
        """The members with a signature of the manifest that they have."""
        digest = bundles.bundle_digest(parts["bundle.json"].decode())
        statement = bundles.signed_statement(BundleSignature(digest, "modelyard", NOON, self.key_id))
        signature = base64.b64encode(self._key.sign(statement.encode())).decode()
        envelope = bundles.line({"statement": statement, "signature": signature})
        return parts | {"bundle.sig": envelope.encode()}

    def resigned(self, parts: Parts, **changes: Any) -> Parts:
        """The members after a change of the manifest that its origin signed."""
        text = json.dumps(manifest_of(parts) | changes)
        return self.signed(parts | {"bundle.json": text.encode()})


@pytest.fixture
def origin() -> Origin:
    return Origin()


def written(folder: Path, parts: Parts, name: str = "a.bundle") -> Path:
    with BundleWriter(folder / name) as writer:
        for member, content in parts.items():
            writer.add(member, [content])
        writer.publish()
    return folder / name


def read(folder: Path, parts: Parts, *keys: str) -> None:
    """Check all of a bundle."""
    bundle = open_bundle(written(folder, parts))
    if keys:
        bundle.check_signature(AuditKeys(keys))
    bundle.check_blobs(lambda _size: None)


def test_an_honest_bundle_holds(origin: Origin, tmp_path: Path) -> None:
    path = written(tmp_path, origin.parts())
    bundle = open_bundle(path)
    bundle.check_signature(AuditKeys([Origin().pem, origin.pem]))
    sizes: list[int] = []
    bundle.check_blobs(sizes.append)
    assert sum(sizes) == sum(bundle.blobs.values()) == 702
    (version,) = bundle.manifest.versions
    assert bundle.manifest.model_of(version).aliases == {"champion": 3}
    assert list(bundle.files(version)) == sorted(entries(), key=lambda file: file.path)
    for local in bundle.local_files(version):
        content = path.read_bytes()[local.offset : local.offset + local.entry.size]
        assert (local.source, content) == (str(path), CONTENTS[local.entry.path])
    assert bundle.document(version).approval["state"] == "PENDING"
    assert written(tmp_path, origin.parts(), "b.bundle").read_bytes() == path.read_bytes()
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "b.bundle"]


class ObjectStore:
    """What an object store gets, when it is the client that tells it which bytes of which file."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def put(
        self, request: SignedUrl, source: str, offset: int, length: int, tell: Callable[[int], None]
    ) -> None:
        self.sent.append(Path(source).read_bytes()[offset : offset + length])
        tell(length)

    def stop(self) -> None:
        """Nothing is open."""


class Signing:
    """An artifact service that takes a blob in two parts."""

    async def sign_upload_urls(self, upload_id: str, sha256s: list[str]) -> list[BlobUrls]:
        request = SignedUrl(url="", method="PUT")
        parts = (
            PartUrl(number=1, offset=0, length=300, request=request),
            PartUrl(number=2, offset=300, length=400, request=request),
        )
        return [BlobUrls(sha256=sha256s[0], size=700, parts=parts)]

    async def finish_blob(self, upload_id: str, sha256: str, *, timeout: float) -> None:
        """Trusts everybody."""


async def test_a_blob_goes_to_an_object_store_from_where_it_lies(
    origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(written(tmp_path, origin.parts()))
    files = {file.entry.sha256: file for file in bundle.local_files(bundle.manifest.versions[0])}
    store = ObjectStore()
    monkeypatch.setattr(_direct, "ObjectStore", lambda: store)
    blob = MissingBlob(sha256=sha256(CONTENTS["a/model.bin"]), size=700)
    sender = _direct.DirectSender(Signing(), files, lambda _size: None)  # type: ignore[arg-type]
    assert await sender.send("u-1", [blob]) == []
    assert b"".join(sorted(store.sent, key=len)) == CONTENTS["a/model.bin"]


def test_any_text_may_be_in_a_document(origin: Origin, tmp_path: Path) -> None:
    text = "first\u2028second\u2029third\x85fourth\nfifth"
    bundle = open_bundle(written(tmp_path, origin.parts(description=text)))
    assert bundle.document(bundle.manifest.versions[0]).version["description"] == text


def test_a_member_that_may_be_large_is_read_like_others(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "a.bundle") as writer:
        writer.add("blobs/a", [b"small"], size=5 * 2**30)
        writer.publish()
    with pytest.raises(ArchiveRefused, match=r"bundle\.json.* is missing"):
        open_bundle(tmp_path / "a.bundle")


@pytest.mark.parametrize("name", ["versions/v-1.jsonl", "artifacts", "bundle.json", "blobs"])
def test_a_changed_byte_is_found(origin: Origin, tmp_path: Path, name: str) -> None:
    parts = origin.parts()
    for member in [member for member in parts if member.startswith(name)]:
        content = bytearray(parts[member])
        content[-2] ^= 1
        with pytest.raises(errors.DigestMismatch):
            read(tmp_path, parts | {member: bytes(content)}, origin.pem)


@pytest.mark.parametrize("change", [b"", b"x"])
def test_a_blob_of_another_length_is_found(origin: Origin, tmp_path: Path, change: bytes) -> None:
    parts = origin.parts()
    blob = next(name for name in parts if name.startswith("blobs/"))
    with pytest.raises(ArchiveRefused, match="does not have the 700 bytes"):
        read(tmp_path, parts | {blob: change})


def test_nothing_may_be_missing_and_nothing_more_be_there(origin: Origin, tmp_path: Path) -> None:
    parts = origin.parts()
    for name in parts:
        with pytest.raises(ArchiveRefused, match="is missing"):
            read(tmp_path, {other: content for other, content in parts.items() if other != name})
    for extra in ("blobs/more", "more", f"blobs/{'0' * 64}"):
        with pytest.raises(ArchiveRefused, match="is not in the manifest"):
            read(tmp_path, parts | {extra: b"x"})


def test_only_the_keys_that_are_trusted_count(origin: Origin, tmp_path: Path) -> None:
    stranger = Origin()
    with pytest.raises(errors.SignatureInvalid, match=f"signed by key {stranger.key_id}"):
        read(tmp_path, stranger.parts(), origin.pem)
    envelope = json.loads(origin.parts()["bundle.sig"])
    forged = envelope | {"signature": json.loads(stranger.parts()["bundle.sig"])["signature"]}
    for wrong in (forged, envelope | {"signature": ""}, envelope | {"signature": "é"}):
        parts = origin.parts() | {"bundle.sig": json.dumps(wrong).encode()}
        with pytest.raises(errors.SignatureInvalid, match="is wrong"):
            read(tmp_path, parts, origin.pem)
    other = envelope["statement"].replace('modelyard"', 'elsewhere"', 1)
    assert other != envelope["statement"]
    parts = origin.parts() | {"bundle.sig": json.dumps(envelope | {"statement": other}).encode()}
    with pytest.raises(errors.InvalidArgument):
        read(tmp_path, parts, origin.pem)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"statement": 1, "signature": ""}', '{"statement": "{}", "signature": ""}']
)
def test_a_signature_that_is_none(origin: Origin, tmp_path: Path, text: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"bundle\.sig"):
        read(tmp_path, origin.parts() | {"bundle.sig": text.encode()})


def test_a_signature_of_something_else_is_none(origin: Origin, tmp_path: Path) -> None:
    statement = json.loads(json.loads(origin.parts()["bundle.sig"])["statement"])
    told = json.dumps(statement | {"format": "modelyard.audit/1"})
    parts = origin.parts() | {"bundle.sig": json.dumps({"statement": told, "signature": ""}).encode()}
    with pytest.raises(errors.InvalidArgument, match="something else than a bundle"):
        read(tmp_path, parts)


def version(**changes: Any) -> list[dict[str, Any]]:
    whole = {"id": "v-1", "model_id": "m-1", "number": 3, "seal": ""}
    return [whole | {"artifact_digest": manifest_digest(entries())} | changes]


def model(**changes: Any) -> list[dict[str, Any]]:
    return [{"id": "m-1", "name": "prod.ml.iris", "description": "", "tags": {}, "aliases": {}} | changes]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": "modelyard.bundle/2"}, "of the format"),
        ({"blobs": "none"}, "neither 'embedded' nor 'referenced'"),
        ({"more": 1}, "and nothing else"),
        ({"models": {}}, "models is not as it should be"),
        ({"models": []}, "is not in the bundle"),
        ({"models": model(more=1)}, "and nothing else"),
        ({"models": model() + model(id="m-2")}, "two have the same name"),
        ({"models": model() + model(id="m-2", name="a.b.c")}, "has no version in the bundle"),
        ({"models": model(aliases={"champion": 4})}, "leads out of the bundle"),
        ({"models": model(aliases={"champion": True})}, "leads out of the bundle"),
        ({"models": model(tags={"a": 1})}, "is no text"),
        ({"models": model(id="../m")}, "is none"),
        ({"versions": []}, "no version in the bundle"),
        ({"versions": version(id="../../v")}, "is none"),
        ({"versions": version(number=-1)}, "number is not as it should be"),
        ({"versions": version(number=True)}, "number is not as it should be"),
        ({"versions": version() + version(id="v-2")}, "the same number"),
        ({"versions": version() + version()}, "there twice"),
        ({"versions": version(artifact_digest="sha256:../x")}, "has no digest"),
        ({"versions": version() + version(id="v-2", number=4)}, "not the documents of its versions"),
        ({"lineage": [{"source": "v-1", "target": "v-9", "relation": ""}]}, "leads out of the bundle"),
        ({"files": []}, "not the documents of its versions"),
    ],
)
def test_a_manifest_that_contradicts_itself(
    origin: Origin, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=problem):
        read(tmp_path, origin.resigned(origin.parts(), **changes))


def test_a_manifest_that_two_readers_could_read_differently(origin: Origin, tmp_path: Path) -> None:
    parts = origin.parts()
    twice = parts["bundle.json"].replace(b'"blobs":"embedded"', b'"blobs":"referenced","blobs":"embedded"')
    assert twice != parts["bundle.json"]
    with pytest.raises(errors.InvalidArgument, match="twice in one object"):
        read(tmp_path, origin.signed(parts | {"bundle.json": twice}))


def replaced(origin: Origin, prefix: str, content: bytes) -> Parts:
    """A bundle whose document is another one, all digests right."""
    parts = origin.parts()
    name = next(member for member in parts if member.startswith(prefix))
    files = [
        each | {"sha256": sha256(content), "size": len(content)} if each["path"] == name else each
        for each in manifest_of(parts)["files"]
    ]
    return origin.resigned(parts | {name: content}, files=files)


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([FileEntry("../../etc/passwd", 2, sha256(b"hi"))], "'..' part"),
        ([FileEntry("/etc/passwd", 2, sha256(b"hi"))], "empty"),
        ([FileEntry("a\\b", 2, sha256(b"hi"))], "backslash"),
        (entries()[:2], "do not make up the artifact"),
        ([*entries(), entries()[0]], "do not make up the artifact"),
    ],
)
def test_a_list_of_files_that_is_hostile(
    origin: Origin, tmp_path: Path, files: list[FileEntry], problem: str
) -> None:
    with pytest.raises(errors.InvalidArgument, match=problem):
        read(tmp_path, replaced(origin, "artifacts/", bundles.artifact_to_json(files).encode()))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\n", "is not UTF-8"),
        (b"{\n", "is not JSON"),
        (b'{"kind":"grant"}\n', "of no known kind"),
        (b'{"kind":"version"}\n', "one version and its approval"),
        (b'{"kind":"version","id":"v-2"}\n{"kind":"approval"}\n', "another version"),
        (b"[" * 100_000 + b"\n", "is not JSON"),
    ],
)
def test_a_document_that_is_none(origin: Origin, tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=problem):
        read(tmp_path, replaced(origin, "versions/", content))


def zipped(change: Callable[[zipfile.ZipFile, Parts], None], parts: Parts) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        change(archive, parts)
    return buffer.getvalue()


def compressed(archive: zipfile.ZipFile, parts: Parts) -> None:
    for name, content in parts.items():
        archive.writestr(name, content, compress_type=zipfile.ZIP_DEFLATED)


def leaving(archive: zipfile.ZipFile, parts: Parts) -> None:
    for name, content in (parts | {"../outside": b""}).items():
        archive.writestr(name, content)


def linked(archive: zipfile.ZipFile, parts: Parts) -> None:
    info = zipfile.ZipInfo("blobs/link")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def twice(archive: zipfile.ZipFile, parts: Parts) -> None:
    for name, content in [*parts.items(), ("bundle.json", b"{}")]:
        archive.writestr(name, content)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (compressed, "is compressed"),
        (leaving, "leaves the archive"),
        (linked, "is a link"),
        (twice, "is there twice"),
    ],
)
def test_a_hostile_archive(
    origin: Origin, tmp_path: Path, change: Callable[[zipfile.ZipFile, Parts], None], problem: str
) -> None:
    path = tmp_path / "a.bundle"
    path.write_bytes(zipped(change, origin.parts()))
    with pytest.raises(ArchiveRefused, match=problem):
        open_bundle(path)


def test_a_bundle_that_is_cut_off(origin: Origin, tmp_path: Path) -> None:
    path = written(tmp_path, origin.parts())
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ArchiveRefused):
            open_bundle(path)


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"{}"
        raise ZeroDivisionError

    with BundleWriter(tmp_path / "a.bundle") as writer, pytest.raises(ZeroDivisionError):
        writer.add("bundle.json", failing())
    assert list(tmp_path.iterdir()) == []


def test_names_of_models(origin: Origin) -> None:
    one = bundles.parse_manifest(origin.parts()["bundle.json"].decode())
    two = BundleManifest(
        True, (*one.models, BundledModel("m-2", "prod.ml.lily", "", {}, {})), one.versions, (), ()
    )
    assert names_for(one, "lab.ml.rose") == {"m-1": "lab.ml.rose"}
    assert names_for(two, "lab.ml") == {"m-1": "lab.ml.iris", "m-2": "lab.ml.lily"}
    each = {"prod.ml.iris": "a.b.c", "prod.ml.lily": "a.b.d"}
    assert names_for(two, each) == {"m-1": "a.b.c", "m-2": "a.b.d"}
    for wrong, problem in (
        ("lab.ml.rose", "give a schema"),
        ("lab", "names"),
        ({"prod.ml.iris": "a.b.c"}, "say what 'prod.ml.lily'"),
        ({**each, "prod.ml.rose": "a.b.e"}, "has no model 'prod.ml.rose'"),
        (dict.fromkeys(each, "a.b.c"), "would be called the same"),
    ):
        with pytest.raises(errors.InvalidArgument, match=problem):
            names_for(two, wrong)


def test_nobody_is_trusted_by_default(origin: Origin, tmp_path: Path) -> None:
    path = written(tmp_path, origin.parts())
    with Client() as client:
        with pytest.raises(errors.InvalidArgument, match="trust: give the public key"):
            client.bundles.import_bundle(path, "lab.ml.iris")
        with pytest.raises(errors.SignatureInvalid):
            client.bundles.import_bundle(path, "lab.ml.iris", trust=[Origin().pem])
        assert client.bundles.verify(path, trust=[origin.pem]).manifest.versions[0].number == 3
