"""The bytes of versions: sent once, verified, continued after a cut, and read by those who may."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard import errors
from modelyard._progress import TransferProgress
from modelyard.aio import AsyncClient
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.types import FileEntry, UploadState
from tests.framework.stack import Stack
from tests.framework.waiting import eventually

MIB = 1024 * 1024


@pytest.fixture
async def model(admin: AsyncClient, schema: str) -> str:
    """A new model without versions."""
    await admin.models.create(f"{schema}.iris")
    return f"{schema}.iris"


def noise(size: int) -> bytes:
    """Return bytes that no other test has sent."""
    return random.Random(uuid.uuid4().int).randbytes(size)


def entry(content: bytes, path: str = "weights") -> FileEntry:
    """Announce some content as a file."""
    return FileEntry(path, len(content), hashlib.sha256(content).hexdigest())


def manifest_digest(*files: FileEntry) -> str:
    """Return the digest of an artifact by the published rule, told here independently of the client."""
    lines = [
        f"{one.sha256} {one.size} {one.path}\n" for one in sorted(files, key=lambda one: one.path.encode())
    ]
    return "sha256:" + hashlib.sha256(("modelyard-manifest-v1\n" + "".join(lines)).encode()).hexdigest()


def pieces(upload_id: str, sha256: str, content: bytes, *, offset: int = 0) -> list[pb.UploadBlobsRequest]:
    """Return the stream that sends some content from an offset."""
    header = pb.BlobHeader(upload_id=upload_id, sha256=sha256, offset=offset)
    chunks = [content[at : at + MIB] for at in range(offset, len(content), MIB)]
    return [
        pb.UploadBlobsRequest(header=header),
        *(pb.UploadBlobsRequest(chunk=chunk) for chunk in chunks),
    ]


async def send(client: AsyncClient, stream: Sequence[pb.UploadBlobsRequest], *, stay: bool = False) -> int:
    """Send a stream as it is, for cases that the client never lets happen; `stay` keeps it open at the end."""

    async def requests() -> AsyncIterator[pb.UploadBlobsRequest]:
        for piece in stream:
            yield piece
        if stay:
            await asyncio.Event().wait()

    connection = client._connection
    answer = await connection.send(
        connection.artifact.UploadBlobs, pb.UploadBlobsRequest, requests, timeout=60.0
    )
    return answer.completed


async def read(client: AsyncClient, reference: str, path: str = "weights", **part: int) -> bytes:
    """Return the bytes of a file, or a part of them."""
    return b"".join([chunk async for chunk in client.artifacts.read_file(reference, path, **part)])


async def log(client: AsyncClient, model: str, folder: Path, content: bytes) -> str:
    """Log a version whose artifact is one file; return its reference."""
    (folder / "weights").write_bytes(content)
    artifact = await client.artifacts.upload(model, folder / "weights")
    return (await client.versions.create(model, artifact.digest)).name


async def test_a_folder_comes_back_as_it_was(admin: AsyncClient, model: str, tmp_path: Path) -> None:
    files = {
        "model.bin": noise(8 * MIB + 17),
        "empty": b"",
        "über/tief/unter/größe.txt": "ß".encode(),
        "with space/and, comma": b"x" * MIB,
    }
    for name, content in files.items():
        path = tmp_path / "up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    artifact = await admin.artifacts.upload(model, tmp_path / "up")
    assert artifact.digest == manifest_digest(*(entry(content, name) for name, content in files.items()))
    assert (artifact.file_count, artifact.size) == (4, sum(map(len, files.values())))
    version = await admin.versions.create(model, artifact.digest)
    listed = await admin.artifacts.list_files(version.name, page_size=2).collect()
    assert [one.path for one in listed] == sorted(files, key=str.encode)
    down = await admin.artifacts.download(version.name, tmp_path / "down")
    found = {path.relative_to(down).as_posix(): path for path in down.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == files
    assert {path.name for path in tmp_path.iterdir()} == {"up", "down"}


async def test_an_upload_cut_in_the_middle_continues_where_it_was(
    stack: Stack, admin: AsyncClient, model: str
) -> None:
    content = noise(6 * MIB)
    file = entry(content)
    upload = await admin.artifacts.begin_upload(model, [file])
    assert [(one.sha256, one.size, one.offset) for one in upload.missing] == [(file.sha256, len(content), 0)]
    half = pieces(upload.id, file.sha256, content[: 3 * MIB])
    cut = asyncio.create_task(send(admin, half, stay=True))

    async def half_arrived() -> bool:
        return (await admin.artifacts.get_upload(upload.id)).missing[0].offset == 3 * MIB

    await eventually(half_arrived)
    cut.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await cut
    with pytest.raises(errors.UploadIncomplete) as incomplete:
        await admin.artifacts.commit_upload(upload.id)
    assert incomplete.value.metadata == {"upload_id": upload.id, "missing": "1"}
    with pytest.raises(errors.OffsetMismatch) as wrong:
        await send(admin, pieces(upload.id, file.sha256, content))
    assert (wrong.value.metadata["expected"], wrong.value.metadata["actual"]) == (str(3 * MIB), "0")
    [missing] = (await admin.artifacts.get_upload(upload.id)).missing
    rest = pieces(upload.id, file.sha256, content, offset=missing.offset)
    assert sum(len(piece.chunk) for piece in rest) == 3 * MIB
    assert await send(admin, rest) == 1
    assert (await admin.artifacts.get_upload(upload.id)).missing == ()
    artifact = await admin.artifacts.commit_upload(upload.id)
    assert artifact.digest == upload.artifact_digest == manifest_digest(file)
    assert await admin.artifacts.commit_upload(upload.id) == artifact
    version = await admin.versions.create(model, artifact.digest)
    assert await read(admin, version.name) == content


async def test_a_stream_that_is_refused_before_its_end_says_why(admin: AsyncClient, model: str) -> None:
    content = noise(6 * MIB)
    upload = await admin.artifacts.begin_upload(model, [entry(content)])
    header, *chunks = pieces(upload.id, entry(content).sha256, content)
    header.header.offset = 1
    for _ in range(30):  # gRPC replaces the refusal by INTERNAL when a write fails at the same moment
        with pytest.raises(errors.OffsetMismatch):
            await send(admin, [header, *chunks])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content + b"x",
    ],
    ids=["one bit", "too long"],
)
async def test_wrong_bytes_are_thrown_away(
    admin: AsyncClient, model: str, spoil: Callable[[bytes], bytes]
) -> None:
    content = noise(2 * MIB - 10)
    file = entry(content)
    upload = await admin.artifacts.begin_upload(model, [file])
    with pytest.raises(errors.DigestMismatch) as caught:
        await send(admin, pieces(upload.id, file.sha256, spoil(content)))
    assert caught.value.metadata["expected"] != caught.value.metadata["actual"]
    [missing] = (await admin.artifacts.get_upload(upload.id)).missing
    assert missing.offset == 0
    with pytest.raises(errors.NotFound):
        await admin.artifacts.get(upload.artifact_digest, model=model)
    assert await send(admin, pieces(upload.id, file.sha256, content)) == 1
    assert (await admin.artifacts.commit_upload(upload.id)).digest == upload.artifact_digest


async def test_what_is_stored_is_not_sent_again(admin: AsyncClient, model: str, schema: str) -> None:
    old, new = noise(1000), noise(1000)
    first = await admin.artifacts.begin_upload(model, [entry(old)])
    await send(admin, pieces(first.id, entry(old).sha256, old))
    await admin.artifacts.commit_upload(first.id)
    await admin.models.create(f"{schema}.other")
    again = await admin.artifacts.begin_upload(f"{schema}.other", [entry(old)])
    assert (again.missing, again.artifact_digest) == ((), first.artifact_digest)
    assert (await admin.artifacts.commit_upload(again.id)).digest == first.artifact_digest
    twice = await admin.artifacts.begin_upload(model, [entry(old, "a"), entry(new, "b"), entry(new, "c/b")])
    assert [one.sha256 for one in twice.missing] == [entry(new).sha256]
    with pytest.raises(errors.UploadIncomplete):
        await admin.artifacts.commit_upload(twice.id)


async def test_a_repeated_announcement_is_the_same_upload(admin: AsyncClient, model: str) -> None:
    request_id, file = uuid.uuid4().hex, entry(noise(10))
    first = await admin.artifacts.begin_upload(model, [file], request_id=request_id)
    assert (await admin.artifacts.begin_upload(model, [file], request_id=request_id)).id == first.id
    with pytest.raises(errors.RequestIdReused):
        await admin.artifacts.begin_upload(model, [entry(noise(10))], request_id=request_id)


async def test_a_finished_upload_takes_nothing_more(admin: AsyncClient, model: str) -> None:
    content = noise(100)
    upload = await admin.artifacts.begin_upload(model, [entry(content)])
    stream = pieces(upload.id, entry(content).sha256, content)
    await send(admin, stream)
    await admin.artifacts.commit_upload(upload.id)
    assert (await admin.artifacts.get_upload(upload.id)).state is UploadState.COMMITTED
    with pytest.raises(errors.InvalidState) as caught:
        await send(admin, stream)
    assert (caught.value.metadata["state"], caught.value.metadata["wanted"]) == ("COMMITTED", "OPEN")


HOSTILE = {
    "traversal": ["../weights"],
    "traversal inside": ["a/../../weights"],
    "absolute": ["/etc/passwd"],
    "empty": [""],
    "empty part": ["a//b"],
    "dot": ["./weights"],
    "backslash": ["..\\weights"],
    "control": ["weights\n"],
    "zero": ["weights\0.txt"],
    "decomposed": ["u\u0308ber"],
    "too long": ["x" * 1025],
    "twice": ["weights", "weights"],
    "differ only in case": ["Weights", "weights"],
    "file and folder": ["weights", "weights/a"],
}


@pytest.mark.parametrize("paths", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_paths_are_refused_by_field(admin: AsyncClient, model: str, paths: list[str]) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await admin.artifacts.begin_upload(model, [entry(b"", path) for path in paths])
    fields = [violation.field for violation in caught.value.violations] or [caught.value.metadata["field"]]
    assert all(field.startswith("files[") for field in fields)
    assert fields


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sha256": "abc"}, "files[0].sha256"),
        ({"sha256": "A" * 64}, "files[0].sha256"),
        ({"size": -1}, "files[0].size"),
    ],
)
async def test_malformed_files_are_refused_by_field(
    admin: AsyncClient, model: str, change: dict[str, object], field: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        await admin.artifacts.begin_upload(model, [replace(entry(b"x"), **change)])  # type: ignore[arg-type]
    assert caught.value.metadata["field"] == field
    with pytest.raises(errors.InvalidArgument, match="files"):
        await admin.artifacts.begin_upload(model, [])


async def test_reading_takes_no_hostile_path_either(admin: AsyncClient, model: str, tmp_path: Path) -> None:
    version = await log(admin, model, tmp_path, b"x")
    for path in ("../weights", "/etc/passwd", ""):
        with pytest.raises(errors.InvalidArgument, match="path"):
            await read(admin, version, path)
    with pytest.raises(errors.NotFound, match="absent"):
        await read(admin, version, "absent")


async def test_an_upload_is_for_who_began_it(stack: Stack, admin: AsyncClient, model: str) -> None:
    content = noise(100)
    upload = await admin.artifacts.begin_upload(model, [entry(content)])
    stream = pieces(upload.id, entry(content).sha256, content)
    async with stack.user("eve") as eve:
        for attempt in (
            eve.client.artifacts.get_upload(upload.id),
            eve.client.artifacts.commit_upload(upload.id),
            send(eve.client, stream),
        ):
            with pytest.raises(errors.NotFound) as caught:
                await attempt
            assert caught.value.name == upload.id
        with pytest.raises(errors.PermissionDenied) as denied:
            await eve.client.artifacts.begin_upload(model, [entry(content)])
        assert denied.value.privilege == "CREATE_VERSION"
    assert await send(admin, stream) == 1


async def test_reading_bytes_needs_more_than_reading_metadata(
    stack: Stack, admin: AsyncClient, model: str, tmp_path: Path
) -> None:
    content = noise(10)
    version = await log(admin, model, tmp_path, content)
    digest = (await admin.versions.get(version)).artifact_digest
    schema = model.rpartition(".")[0]
    async with stack.user() as user:
        for privilege in ("USE_CATALOG", "USE_SCHEMA", "READ_METADATA"):
            await admin.grants.create(user.name, privilege, schema.partition(".")[0])

        async def told() -> bool:
            with contextlib.suppress(errors.PermissionDenied):
                return (await user.client.artifacts.get(digest, model=model)).digest == digest
            return False

        async def readable() -> bool:
            with contextlib.suppress(errors.PermissionDenied):
                return await read(user.client, version) == content
            return False

        await eventually(told)
        for attempt in (
            lambda: read(user.client, version),
            lambda: user.client.artifacts.list_files(version).collect(),
            lambda: user.client.artifacts.download(version, tmp_path / "down"),
        ):
            with pytest.raises(errors.PermissionDenied) as caught:
                await attempt()
            assert caught.value.privilege == "READ_ARTIFACT"
        assert not (tmp_path / "down").exists()
        await admin.grants.create(user.name, "READ_ARTIFACT", model, resource_type="MODEL")
        await eventually(readable)


async def test_a_part_of_a_file_is_read(admin: AsyncClient, model: str, tmp_path: Path) -> None:
    content = noise(2 * MIB + 5)
    version = await log(admin, model, tmp_path, content)
    for offset, length in ((0, 10), (MIB - 1, 2), (MIB, 0), (2 * MIB, 100), (len(content), 0)):
        end = offset + length if length else len(content)
        assert await read(admin, version, offset=offset, length=length) == content[offset:end]
    with pytest.raises(errors.OffsetMismatch) as caught:
        await read(admin, version, offset=len(content) + 1)
    assert caught.value.metadata["expected"] == str(len(content))
    with pytest.raises(errors.InvalidArgument, match="length"):
        await read(admin, version, length=-1)


async def test_a_version_takes_only_what_was_committed_for_its_model(
    admin: AsyncClient, model: str, schema: str, tmp_path: Path
) -> None:
    other = f"{schema}.other"
    await admin.models.create(other)
    digest = (await admin.versions.get(await log(admin, other, tmp_path, noise(10)))).artifact_digest
    pending = await admin.versions.create(model)
    for attempt in (
        lambda: admin.versions.create(model, digest),
        lambda: admin.versions.finalize(pending.name, digest),
        lambda: admin.versions.create(model, "sha256:" + "0" * 64),
    ):
        with pytest.raises(errors.InvalidArgument, match="artifact_digest"):
            await attempt()
    assert [one.number async for one in admin.versions.list(model)] == [pending.number]
    with pytest.raises(errors.NotFound):
        await admin.artifacts.get(digest, model=model)
    with pytest.raises(errors.InvalidState):
        await read(admin, pending.name)


@pytest.mark.parametrize("size", [1000, 3 * MIB])
async def test_a_file_that_changes_between_hashing_and_sending_is_refused_by_name(
    admin: AsyncClient, model: str, tmp_path: Path, size: int
) -> None:
    (tmp_path / "other").write_bytes(noise(1000))
    (tmp_path / "weights").write_bytes(noise(size))

    def change(progress: TransferProgress) -> None:
        if progress.action == "hash" and progress.done == progress.total:
            (tmp_path / "weights").write_bytes(noise(size))

    with pytest.raises(errors.DigestMismatch, match="weights changed while it was sent"):
        await admin.artifacts.upload(model, tmp_path, progress=change)
    assert (await admin.artifacts.upload(model, tmp_path, progress=False)).file_count == 2
