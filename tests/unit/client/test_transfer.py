"""Upload and download against an artifact store of forty lines."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from modelyard import Client, errors
from modelyard import _fetch as downloads
from modelyard import _upload as uploads
from modelyard._manifest import check_path, manifest_digest
from modelyard._progress import TransferProgress
from modelyard.api.artifact.v1 import artifact_pb2
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.catalog.v1 import catalog_service_pb2
from modelyard.types import FileEntry
from modelyard_kit.filters.lexer import tokens

from .fake import Fake, Refusal

MODEL, VERSION = "prod.ml.iris", "prod.ml.iris/1"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Store:
    """Keeps blobs; cuts a stream after `cut_after` bytes while `cuts` lasts."""

    def __init__(self, fake: Fake) -> None:
        self.files: list[Any] = []
        self.blobs: dict[str, bytes] = {}
        self.cuts = 0
        self.lies = False
        self.cut_after = 0
        self.received = 0
        self.state_number = artifact_pb2.Upload.STATE_OPEN
        fake.answers.update(
            BeginUpload=self.begin,
            UploadBlobs=self.upload,
            GetUpload=lambda _: pb.GetUploadResponse(upload=self.state()),
            CommitUpload=self.commit,
            ListFiles=self.list_files,
            ReadFile=self.read,
            ReadFiles=self.read_files,
            GetModelVersion=lambda _: catalog_service_pb2.GetModelVersionResponse(
                model_version={"name": VERSION, "number": 1}
            ),
        )

    @property
    def digest(self) -> str:
        return manifest_digest(FileEntry(f.path, f.size, f.sha256) for f in self.files)

    def state(self) -> Any:
        sizes = {f.sha256: f.size for f in self.files}
        missing = [
            artifact_pb2.MissingBlob(sha256=name, size=size, offset=len(self.blobs.get(name, b"")))
            for name, size in sizes.items()
            if len(self.blobs.get(name, b"")) < size or name not in self.blobs
        ]
        return artifact_pb2.Upload(
            id="u1", artifact_digest=self.digest, missing=missing, state=self.state_number
        )

    def begin(self, request: Any) -> Any:
        self.files = list(request.files)
        return pb.BeginUploadResponse(upload=self.state())

    def upload(self, pieces: list[Any]) -> Any:
        name, taken = "", 0
        for piece in pieces:
            if piece.WhichOneof("piece") == "header":
                name = piece.header.sha256
                assert piece.header.offset == len(self.blobs.get(name, b""))
                self.blobs.setdefault(name, b"")
                continue
            if piece.WhichOneof("piece") == "blobs":
                if self.cuts:
                    self.cuts -= 1
                    raise Refusal("UNAVAILABLE")
                assert sum(map(len, piece.blobs.contents)) <= 1024 * 1024
                for content in piece.blobs.contents:
                    if sha(content) not in {f.sha256 for f in self.files}:
                        of_some = {"expected": "the content of a file of this upload", "actual": sha(content)}
                        raise Refusal("INVALID_ARGUMENT", "DIGEST_MISMATCH", metadata=of_some)
                    self.blobs[sha(content)] = content
                    self.received += len(content)
                continue
            assert len(piece.chunk) <= 1024 * 1024
            if self.cuts and taken + len(piece.chunk) > self.cut_after:
                self.cuts -= 1
                raise Refusal("UNAVAILABLE")
            self.blobs[name] += piece.chunk
            taken += len(piece.chunk)
            self.received += len(piece.chunk)
        return pb.UploadBlobsResponse()

    def commit(self, _: object) -> Any:
        assert all(sha(self.blobs[f.sha256]) == f.sha256 for f in self.files)
        return pb.CommitUploadResponse(artifact={"digest": self.digest, "file_count": len(self.files)})

    def list_files(self, request: Any) -> Any:
        files = [f for f in self.files if request.filter in ("", f"path = '{f.path}'")]
        return pb.ListFilesResponse(artifact_digest=self.digest, files=files)

    def read(self, request: Any) -> Any:
        entry = next(f for f in self.files if f.path == request.path)
        data = self.blobs[entry.sha256][request.offset :]
        data = data[: request.length] if request.length and not self.lies else data
        for start in range(0, len(data), 1024):
            if self.cuts and start >= self.cut_after:
                self.cuts -= 1
                raise Refusal("UNAVAILABLE")
            yield pb.ReadFileResponse(chunk=data[start : start + 1024])

    def read_files(self, request: Any) -> Any:
        """Two files in a message, to have many messages."""
        entries = {f.path: f for f in self.files}
        pieces = [
            pb.FilePiece(index=index, data=self.blobs[entries[path].sha256])
            for index, path in enumerate(request.paths)
        ]
        for start in range(0, len(pieces), 2):
            if self.cuts and start >= self.cut_after:
                self.cuts -= 1
                raise Refusal("UNAVAILABLE")
            yield pb.ReadFilesResponse(pieces=pieces[start : start + 2])


@pytest.fixture
def store(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(uploads, "_FIRST_PAUSE", 0)
    monkeypatch.setattr(downloads, "_FIRST_PAUSE", 0)
    return Store(fake)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    (root / "deep").mkdir(parents=True)
    (root / "model.skops").write_bytes(b"weights" * 1000)
    (root / "deep/copy").write_bytes(b"weights" * 1000)
    (root / "deep/ä").write_bytes(b"umlaut")
    (root / "empty").write_bytes(b"")
    return root


def test_the_digest_follows_the_published_rule() -> None:
    files = [FileEntry("b", 1, sha(b"1")), FileEntry("a", 0, sha(b"")), FileEntry("ä", 2, sha(b"22"))]
    text = f"modelyard-manifest-v1\n{sha(b'')} 0 a\n{sha(b'1')} 1 b\n{sha(b'22')} 2 ä\n"
    assert manifest_digest(files) == "sha256:" + sha(text.encode())


def test_a_folder_is_stored_once_by_content(client: Client, store: Store, folder: Path) -> None:
    artifact = client.artifacts.upload(MODEL, folder, progress=False)
    assert artifact.digest == store.digest
    assert {f.path for f in store.files} == {"model.skops", "deep/copy", "deep/ä", "empty"}
    assert store.received == 7000 + 6
    store.received = 0
    assert client.artifacts.upload(MODEL, folder, progress=False).digest == artifact.digest
    assert store.received == 0


def test_a_cut_upload_continues_where_it_ended(
    client: Client, store: Store, tmp_path: Path, fake: Fake
) -> None:
    data = bytes(range(256)) * 4096 * 5  # 5 MiB
    (tmp_path / "big").write_bytes(data)
    store.cuts, store.cut_after = 3, 1024 * 1024
    seen: list[TransferProgress] = []
    client.artifacts.upload(MODEL, tmp_path / "big", progress=seen.append)
    assert store.blobs == {sha(data): data}
    assert store.received == len(data)
    offsets = [pieces[0].header.offset for pieces in fake.requests("UploadBlobs")]
    assert offsets == [0, 1024 * 1024, 2 * 1024 * 1024, 3 * 1024 * 1024]
    assert seen[-1] == TransferProgress("upload", len(data), len(data), 1, 1)
    assert {told.action for told in seen} == {"hash", "upload"}
    assert all(told.done <= told.total for told in seen)


def test_an_upload_without_progress_is_given_up(
    client: Client, store: Store, tmp_path: Path, fake: Fake
) -> None:
    (tmp_path / "big").write_bytes(b"x")
    store.cuts, store.cut_after = 1000, 0
    with pytest.raises(errors.Unavailable):
        client.artifacts.upload(MODEL, tmp_path / "big", progress=False)
    assert len(fake.requests("UploadBlobs")) == uploads.MAX_ATTEMPTS


def test_a_store_that_counts_otherwise_is_not_trusted(
    client: Client, store: Store, folder: Path, fake: Fake
) -> None:
    fake.answers["BeginUpload"] = lambda _: pb.BeginUploadResponse(
        upload={"id": "u", "artifact_digest": "sha256:00"}
    )
    with pytest.raises(errors.DigestMismatch, match="by the published rule"):
        client.artifacts.upload(MODEL, folder, progress=False)


def test_nothing_to_upload_is_refused(client: Client, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgument, match="is no file and no folder"):
        client.artifacts.upload(MODEL, tmp_path / "nowhere", progress=False)
    (tmp_path / "hollow").mkdir()
    with pytest.raises(errors.InvalidArgument, match="holds no files"):
        client.artifacts.upload(MODEL, tmp_path / "hollow", progress=False)


def test_paths_that_cannot_be_stored_are_named_before_anything_is_sent(
    client: Client, tmp_path: Path, fake: Fake
) -> None:
    (tmp_path / "bad\nname").write_bytes(b"")
    with pytest.raises(errors.InvalidArgument, match="control character"):
        client.artifacts.upload(MODEL, tmp_path, progress=False)
    assert not fake.calls


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../up", "a//b", "a/./b", "a\\b", "a\0b", "é" * 600, "e\u0301"]
)
def test_paths_of_artifacts(path: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        check_path(path)


def test_a_download_is_the_tree_that_was_uploaded(
    client: Client, store: Store, folder: Path, tmp_path: Path, fake: Fake
) -> None:
    client.artifacts.upload(MODEL, folder, progress=False)
    seen: list[TransferProgress] = []
    target = client.download("prod.ml.iris@champion", tmp_path / "out", progress=seen.append)
    assert target == tmp_path / "out"
    assert tree(target) == tree(folder)
    assert seen[-1] == TransferProgress("download", 14006, 14006, 4, 4)
    assert {request.model_version for request in fake.requests("ReadFiles")} == {VERSION}  # not the alias


def test_a_cut_download_continues(client: Client, store: Store, folder: Path, tmp_path: Path) -> None:
    (folder / "large").write_bytes(b"large" * 100_000)
    client.artifacts.upload(MODEL, folder, progress=False)
    store.cuts, store.cut_after = 4, 2
    assert tree(client.download(VERSION, tmp_path / "out", progress=False)) == tree(folder)
    assert store.cuts == 0


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"!", lambda data: b"?" + data[1:]]
)
def test_bytes_that_are_not_what_was_announced_leave_nothing_behind(
    client: Client, store: Store, folder: Path, tmp_path: Path, change: Any
) -> None:
    client.artifacts.upload(MODEL, folder, progress=False)
    name = sha(b"weights" * 1000)
    store.blobs[name] = change(store.blobs[name])
    with pytest.raises(errors.DigestMismatch, match="announced were 7000 bytes"):
        client.download(VERSION, tmp_path / "out" / "deeper", progress=False)
    assert not list((tmp_path / "out").iterdir())


def test_one_file_is_asked_for_by_its_path(client: Client, fake: Fake) -> None:
    path = "it's/'a' \"b\""
    entry = artifact_pb2.FileEntry(path=path, size=1, sha256=sha(b"x"))
    fake.answers["ListFiles"] = lambda _: pb.ListFilesResponse(files=[entry])
    assert client.artifacts.find(VERSION, path) == FileEntry(path, 1, sha(b"x"))
    [request] = fake.requests("ListFiles")
    assert [token.value for token in tokens(request.filter, "filter")][:-1] == ["path", "=", path]
    fake.answers["ListFiles"] = lambda _: pb.ListFilesResponse()
    with pytest.raises(errors.NotFound, match="has no file 'a'"):
        client.artifacts.find(VERSION, "a")
    with pytest.raises(errors.InvalidArgument, match=r"'\.\.' part"):
        client.artifacts.find(VERSION, "../a")


def test_an_answer_cannot_write_outside_the_folder(client: Client, store: Store, tmp_path: Path) -> None:
    store.files = [artifact_pb2.FileEntry(path="../evil", size=1, sha256=sha(b"x"))]
    with pytest.raises(errors.InvalidArgument, match="'..' part"):
        client.download(VERSION, tmp_path / "out", progress=False)
    assert not (tmp_path / "evil").exists()


def test_a_folder_is_replaced_only_when_allowed(
    client: Client, store: Store, folder: Path, tmp_path: Path
) -> None:
    client.artifacts.upload(MODEL, folder, progress=False)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("keep")
    with pytest.raises(errors.ConfigurationError, match="exists; choose another"):
        client.download(VERSION, out, progress=False)
    assert (out / "mine").read_text() == "keep"
    client.download(VERSION, out, overwrite=True, progress=False)
    assert tree(out) == tree(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "model", "out"]


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }
