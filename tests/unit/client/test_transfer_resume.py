"""Transfers that were interrupted, that others make at the same time, or that go around the service."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard import Client, errors
from modelyard import _fetch as fetch
from modelyard import _partial as partial
from modelyard import _upload as uploads
from modelyard.api.artifact.v1 import artifact_pb2
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb

from .fake import Fake, Refusal
from .test_http import Server
from .test_http import server as server  # noqa: PLC0414  (a fixture)
from .test_transfer import MODEL, VERSION, Store, sha, tree
from .test_transfer import folder as folder  # noqa: PLC0414
from .test_transfer import store as store  # noqa: PLC0414

LARGE = random.Random(7).randbytes(1_000_000)


@pytest.fixture
def large(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with a file of several segments."""
    monkeypatch.setattr(partial, "SEGMENT_BYTES", 300_000)
    (folder / "large").write_bytes(LARGE)
    return folder


class Objects:
    """Addresses of an HTTP server for the blobs of a store."""

    def __init__(self, fake: Fake, store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(uploads, "DIRECT_BYTES", 100_000)
        monkeypatch.setattr(fetch, "DIRECT_BYTES", 100_000)
        self.store, self.server = store, server
        self.signed: list[str] = []
        fake.answers.update(
            SignUploadUrls=self.sign, FinishBlob=self.finish, SignDownloadUrls=self.sign_download
        )
        begin = store.state

        def direct() -> Any:
            upload = begin()
            upload.direct = True
            return upload

        monkeypatch.setattr(store, "state", direct)

    def sign(self, request: Any) -> Any:
        [sha256] = request.sha256s
        self.signed.append(sha256)
        half = len(LARGE) // 2
        parts = [
            {
                "number": number,
                "offset": offset,
                "length": half,
                "request": self.request("PUT", sha256, number),
            }
            for number, offset in ((1, 0), (2, half))
            if f"/{sha256}-{number}?signature=1" not in self.server.objects
        ]
        return pb.SignUploadUrlsResponse(blobs=[{"sha256": sha256, "size": len(LARGE), "parts": parts}])

    def finish(self, request: Any) -> Any:
        data = b"".join(
            self.server.objects.get(f"/{request.sha256}-{number}?signature=1", b"") for number in (1, 2)
        )
        if sha(data) != request.sha256:
            raise Refusal("FAILED_PRECONDITION", "UPLOAD_INCOMPLETE")
        self.store.blobs[request.sha256] = data
        return pb.FinishBlobResponse()

    def sign_download(self, request: Any) -> Any:
        [path] = request.paths
        entry = next(file for file in self.store.files if file.path == path)
        self.server.objects[f"/{entry.sha256}?signature=1"] = self.store.blobs[entry.sha256]
        return pb.SignDownloadUrlsResponse(
            files=[{"file": {"path": path}, "request": self.request("GET", entry.sha256)}]
        )

    def request(self, method: str, sha256: str, number: int = 0) -> Any:
        name = f"{sha256}-{number}" if number else sha256
        return {"url": self.server.url(name), "method": method}


@pytest.fixture
def objects(fake: Fake, store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> Objects:
    return Objects(fake, store, server, monkeypatch)


def test_the_same_files_find_their_upload_again(
    client: Client, store: Store, folder: Path, fake: Fake
) -> None:
    store.cuts, store.cut_after = 1000, 0
    with pytest.raises(errors.Unavailable):
        client.artifacts.upload(MODEL, folder, progress=False)
    store.cuts = 0
    client.artifacts.upload(MODEL, folder, progress=False)
    first, second = fake.requests("BeginUpload")
    assert first.request_id == second.request_id
    (folder / "deep/copy").write_bytes(b"changed")
    client.artifacts.upload(MODEL, folder, progress=False)
    assert fake.requests("BeginUpload")[2].request_id != first.request_id


def test_a_committed_upload_is_followed_by_a_new_one(
    client: Client, store: Store, folder: Path, fake: Fake
) -> None:
    digest = client.artifacts.upload(MODEL, folder, progress=False).digest
    store.state_number = artifact_pb2.Upload.STATE_COMMITTED
    assert client.artifacts.upload(MODEL, folder, progress=False).digest == digest
    _, found, new = fake.requests("BeginUpload")
    assert found.request_id != new.request_id


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal("NOT_FOUND", "RESOURCE_NOT_FOUND", metadata={"resource_type": "upload", "name": "u1"}),
        Refusal("INVALID_ARGUMENT", "REQUEST_ID_REUSED"),
    ],
    ids=["cancelled", "of another model"],
)
def test_an_upload_that_is_gone_is_begun_anew(
    client: Client, store: Store, folder: Path, fake: Fake, refusal: Refusal
) -> None:
    gone: list[str] = []

    def begin(request: Any) -> Any:
        if len(gone) < 2:
            gone.append(request.request_id)
            raise refusal
        return store.begin(request)

    fake.answers["BeginUpload"] = begin
    assert client.artifacts.upload(MODEL, folder, progress=False).digest == store.digest
    assert len({*gone, fake.requests("BeginUpload")[-1].request_id}) == 3


def test_a_missing_model_is_no_missing_upload(client: Client, store: Store, folder: Path, fake: Fake) -> None:
    def begin(_: Any) -> Any:
        raise Refusal("NOT_FOUND", "RESOURCE_NOT_FOUND", metadata={"resource_type": "model", "name": MODEL})

    fake.answers["BeginUpload"] = begin
    with pytest.raises(errors.NotFound):
        client.artifacts.upload(MODEL, folder, progress=False)
    assert len(fake.requests("BeginUpload")) == 1


def test_an_upload_that_somebody_cancels_meanwhile_is_begun_again(
    client: Client, store: Store, folder: Path, fake: Fake
) -> None:
    commits: list[Any] = []

    def commit(request: Any) -> Any:
        commits.append(request)
        if len(commits) == 1:
            raise Refusal(
                "NOT_FOUND", "RESOURCE_NOT_FOUND", metadata={"resource_type": "upload", "name": "u1"}
            )
        return store.commit(request)

    fake.answers["CommitUpload"] = commit
    assert client.artifacts.upload(MODEL, folder, progress=False).digest == store.digest
    assert len(fake.requests("BeginUpload")) == 2


def test_what_is_lost_between_sending_and_commit_is_sent_again(
    client: Client, store: Store, folder: Path, fake: Fake
) -> None:
    commits: list[Any] = []

    def commit(request: Any) -> Any:
        commits.append(request)
        if len(commits) == 1:
            store.blobs.clear()
            raise Refusal("FAILED_PRECONDITION", "UPLOAD_INCOMPLETE", metadata={"missing": "3"})
        return store.commit(request)

    fake.answers["CommitUpload"] = commit
    assert client.artifacts.upload(MODEL, folder, progress=False).digest == store.digest
    assert store.received == 2 * (7000 + 6)
    assert not fake.requests("GetUpload")  # nothing was cut, so nothing had to be asked


def test_a_commit_outlasts_a_restart(client: Client, store: Store, folder: Path, fake: Fake) -> None:
    commits: list[Any] = []

    def commit(request: Any) -> Any:
        commits.append(request)
        if len(commits) <= 5:  # gRPC itself tries four times
            raise Refusal("UNAVAILABLE")
        return store.commit(request)

    fake.answers["CommitUpload"] = commit
    assert client.artifacts.upload(MODEL, folder, progress=False).digest == store.digest
    assert len(fake.requests("BeginUpload")) == 1


def test_a_file_that_changes_while_it_is_sent_is_named(
    client: Client, store: Store, folder: Path, fake: Fake
) -> None:
    def begin(request: Any) -> Any:
        (folder / "deep/ä").write_bytes(b"Umlaut")
        return store.begin(request)

    fake.answers["BeginUpload"] = begin
    with pytest.raises(errors.DigestMismatch, match="ä changed while it was sent"):
        client.artifacts.upload(MODEL, folder, progress=False)


def test_large_blobs_go_straight_to_the_object_store(
    client: Client, store: Store, objects: Objects, large: Path
) -> None:
    objects.server.failures = [503, "cut"]
    client.artifacts.upload(MODEL, large, progress=False)
    assert store.received == 7006  # what is small
    assert store.blobs[sha(LARGE)] == LARGE


def test_addresses_that_ran_out_are_asked_for_again_and_parts_are_not_sent_twice(
    client: Client, store: Store, objects: Objects, large: Path
) -> None:
    objects.server.failures = [403]
    client.artifacts.upload(MODEL, large, progress=False)
    assert objects.signed == [sha(LARGE)] * 2
    assert store.blobs[sha(LARGE)] == LARGE
    assert len(objects.server.seen) == 3  # two parts, one of them refused once


def test_an_object_store_out_of_reach_leaves_the_way_through_the_service(
    client: Client, store: Store, objects: Objects, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.server.failures = [503] * 100
    client.artifacts.upload(MODEL, large, progress=False)
    assert store.received == 7006 + len(LARGE)


def test_large_files_come_straight_from_the_object_store(
    client: Client, store: Store, objects: Objects, large: Path, tmp_path: Path, fake: Fake
) -> None:
    client.artifacts.upload(MODEL, large, progress=False)
    objects.server.seen.clear()
    objects.server.failures = [503, 403]
    assert tree(client.download(VERSION, tmp_path / "out", progress=False)) == tree(large)
    assert not fake.requests("ReadFile")
    assert len(objects.server.seen) == 6  # four ranges, one failed, one with a new address


def test_a_lying_object_store_is_found_out(
    client: Client, store: Store, objects: Objects, large: Path, tmp_path: Path
) -> None:
    client.artifacts.upload(MODEL, large, progress=False)
    store.blobs[sha(LARGE)] = LARGE[:500_000] + b"?" + LARGE[500_001:]
    with pytest.raises(errors.DigestMismatch, match="large came with 1000000 bytes"):
        client.download(VERSION, tmp_path / "deep" / "out", progress=False)
    assert not list((tmp_path / "deep").iterdir())


def test_an_interrupted_download_continues(
    client: Client, store: Store, large: Path, tmp_path: Path, fake: Fake
) -> None:
    client.artifacts.upload(MODEL, large, progress=False)
    reads: list[tuple[int, int]] = []

    def broken(request: Any) -> Iterator[Any]:
        reads.append((request.offset, request.length))
        if request.offset >= 600_000:
            raise Refusal("PERMISSION_DENIED", "PERMISSION_DENIED")
        yield from store.read(request)

    fake.answers["ReadFile"] = broken
    with pytest.raises(errors.PermissionDenied):
        client.download(VERSION, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()
    [left] = tmp_path.glob(".out.*.partial")
    lines = [line.split() for path in (left / "ranges").iterdir() for line in path.read_text().splitlines()]
    done = {int(number) for number, _ in lines}
    assert done <= {0, 1}
    (left / "files" / "stray").write_bytes(b"not part of it")
    reads.clear()
    fake.answers["ReadFile"] = lambda request: (
        reads.append((request.offset, request.length)),
        store.read(request),
    )[1]
    fake.calls.clear()
    assert tree(client.download(VERSION, tmp_path / "out", progress=False)) == tree(large)
    assert {offset for offset, _ in reads} == {number * 300_000 for number in range(4) if number not in done}
    assert not list(tmp_path.glob(".out.*"))


def test_what_an_interrupted_download_left_is_checked(
    client: Client, store: Store, large: Path, tmp_path: Path, fake: Fake
) -> None:
    client.artifacts.upload(MODEL, large, progress=False)
    fake.answers["ReadFile"] = lambda _: (_ for _ in ()).throw(
        Refusal("PERMISSION_DENIED", "PERMISSION_DENIED")
    )
    with pytest.raises(errors.PermissionDenied):
        client.download(VERSION, tmp_path / "out", progress=False)
    [left] = tmp_path.glob(".out.*.partial")
    (left / "files" / "large").write_bytes(b"?" * len(LARGE))
    (left / "ranges" / sha(LARGE)).write_text("0 300000\n1 300000\n2 300000\n3 100000\n1 nonsense")
    (left / "files" / "model.skops").write_bytes(b"?" * 7000)
    fake.answers["ReadFile"] = store.read
    assert tree(client.download(VERSION, tmp_path / "out", progress=False)) == tree(large)


def test_two_programs_may_download_to_one_place(
    client: Client, store: Store, folder: Path, tmp_path: Path
) -> None:
    artifact = client.artifacts.upload(MODEL, folder, progress=False)
    other = partial.PartialFolder(tmp_path / "out", artifact.digest)
    (other.files / "model.skops").write_bytes(b"half")
    assert tree(client.download(VERSION, tmp_path / "out", progress=False)) == tree(folder)
    assert (other.files / "model.skops").read_bytes() == b"half"
    other.close()


def test_a_second_download_asks_for_nothing_that_the_cache_has(
    client: Client, store: Store, large: Path, tmp_path: Path, fake: Fake
) -> None:
    client.artifacts.upload(MODEL, large, progress=False)
    first = client.download(VERSION, tmp_path / "first", progress=False)
    fake.calls.clear()
    assert tree(client.download(VERSION, tmp_path / "second", progress=False)) == tree(large)
    assert not fake.requests("ReadFile")
    assert not fake.requests("ReadFiles")
    (first / "large").write_bytes(b"edited")
    assert tree(client.download(VERSION, tmp_path / "third", progress=False)) == tree(large)
    assert fake.requests("ReadFile")


def test_one_file_is_read_fetched_and_opened(
    client: Client, store: Store, large: Path, tmp_path: Path, fake: Fake
) -> None:
    client.artifacts.upload(MODEL, large, progress=False)
    assert client.artifacts.read(VERSION, "large") == LARGE
    assert client.artifacts.read(VERSION, "large", offset=10, length=20) == LARGE[10:30]
    to = client.artifacts.download_file(VERSION, "large", tmp_path / "one", progress=False)
    assert to.read_bytes() == LARGE
    with pytest.raises(errors.ConfigurationError, match="exists"):
        client.artifacts.download_file(VERSION, "large", tmp_path / "one", progress=False)
    with client.artifacts.open(VERSION, "large") as file:
        assert file.seek(-10, os.SEEK_END) == len(LARGE) - 10
        assert file.read() == LARGE[-10:]
        file.seek(500_000)
        assert file.read(7) == LARGE[500_000:500_007]
    with pytest.raises(errors.NotFound, match="absent"):
        client.artifacts.download_file(VERSION, "absent", tmp_path / "two", progress=False)
    store.blobs[sha(LARGE)] = b"!" + LARGE[1:]
    with pytest.raises(errors.DigestMismatch):
        client.artifacts.read(VERSION, "large")


def test_a_zip_is_checked(client: Client, store: Store, folder: Path, tmp_path: Path, fake: Fake) -> None:
    import io
    import zipfile

    client.artifacts.upload(MODEL, folder, progress=False)
    content = tree(folder)

    def archive(_: object) -> Iterator[Any]:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for name in sorted(content, key=str.encode):
                file.writestr(name, content[name])
        data = buffer.getvalue()
        for start in range(0, len(data), 1000):
            yield pb.ReadArchiveResponse(chunk=data[start : start + 1000])

    fake.answers["ReadArchive"] = archive
    path = client.artifacts.download_archive(VERSION, tmp_path / "a.zip", progress=False)
    with zipfile.ZipFile(path) as file:
        assert {name: file.read(name) for name in file.namelist()} == content
    content["deep/copy"] = b"other"
    with pytest.raises(errors.DigestMismatch, match="deep/copy"):
        client.artifacts.download_archive(VERSION, tmp_path / "b.zip", progress=False)
    del content["deep/copy"]
    with pytest.raises(errors.DigestMismatch, match="other members"):
        client.artifacts.download_archive(VERSION, tmp_path / "b.zip", progress=False)
    assert not list(tmp_path.glob("*b.zip*"))
