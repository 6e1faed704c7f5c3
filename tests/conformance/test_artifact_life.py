"""References, collection, verification and statistics, on real PostgreSQL and a real disk; the catalog is played."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import text

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard_artifact import store
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.catalog_peer import CatalogPeer
from modelyard_artifact.collection import Collected, Collector
from modelyard_artifact.errors import BlobLost
from modelyard_artifact.models import Blob
from modelyard_artifact.references import Acquire, References
from modelyard_artifact.transfers import Transfers, WholeBlobs
from modelyard_artifact.verification import Verification
from modelyard_kit.access import SYSTEM_ID
from modelyard_kit.auth import Call
from modelyard_kit.errors import InvalidField, NotFound, PeerUnavailable, PermissionDenied
from modelyard_kit.ids import new_id
from modelyard_kit.peers import Peers
from tests.framework.artifact import (
    BOB,
    ITSELF,
    MODEL,
    OTHER_MODEL,
    ArtifactService,
    FakePeers,
    NameIsToken,
    artifact_service,
    entries,
    missing_pieces,
    sha,
)

FILES = {"model.bin": b"weights" * 100, "conf.json": b"{}"}
OTHERS = {"model.bin": b"other weights", "conf.json": b"{}"}
VERSION = f"{MODEL}/1"
GRACE = timedelta(hours=24)
LONG = timedelta(hours=100)
IRIS, WINE = (f"00000000-0000-7000-8000-00000000000{number}" for number in (1, 2))


class HookedStore(LocalBlobStore):
    """Does something in the very moment before content is deleted."""

    before_delete: Callable[[], Awaitable[None]] | None = None

    async def delete(self, sha256: str) -> None:
        if self.before_delete:
            hook, self.before_delete = self.before_delete, None
            await hook()
        await super().delete(sha256)


class Life:
    """The rules under test beside a running service, with a clock of their own."""

    def __init__(self, service: ArtifactService, root: Path) -> None:
        self.service = service
        self.client = service.client()
        self.root = root
        self.now = datetime.now(UTC)
        self.blobs = HookedStore(root, reserve=0)
        self.catalog = CatalogPeer(cast("Peers", FakePeers(service.catalog)))
        service.catalog.models = {MODEL: IRIS, OTHER_MODEL: WINE}
        self.collector = Collector(service.database, self.blobs, self.catalog, lambda: self.now, grace=GRACE)
        self.references = References(service.database, lambda: self.now)
        self.verification = Verification(service.database, self.blobs)

    async def collect(self, later: timedelta = timedelta(), *, dry_run: bool = False) -> Collected:
        # A moment at least: time does not stand still between two sweeps.
        self.now += later or timedelta(seconds=1)
        return await self.collector.collect(ITSELF, dry_run=dry_run)

    async def acquire(self, digest: str, *, model_id: str = IRIS, source: str = "") -> str:
        version_id = new_id()
        await self.references.acquire(Acquire(digest, model_id, version_id, source))
        return version_id

    async def read_all(self, digest: str) -> dict[str, bytes]:
        """Every file of an artifact, as its bytes are in the store."""
        async with self.service.database.engine.connect() as connection:
            files = await store.list_files(connection, digest, "", 100)
        return {file.path: (await self.blobs.read_whole([Blob(file.sha256, file.size)]))[0] for file in files}

    def content(self) -> set[str]:
        return {path.name for path in (self.root / "blobs").rglob("*") if path.is_file()}

    async def rows(self, table: str) -> int:
        async def work(connection: Any) -> int:
            return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())

        return await self.service.database.read(work)


@pytest.fixture
async def life(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Life]:
    root = tmp_path / "blobs"
    async with artifact_service(fresh_database("modelyard_artifact"), root) as running:
        yield Life(running, root)


async def test_what_no_version_ever_had_goes_after_the_grace_period(life: Life) -> None:
    digest = await life.client.upload(FILES)
    assert await life.collect(GRACE - timedelta(hours=1)) == Collected()
    assert life.content() == {sha(data) for data in FILES.values()}
    size = sum(map(len, FILES.values()))
    assert await life.collect(timedelta(hours=2)) == Collected(1, 2, size)
    collected, condemned = (await life.service.events())[-2:]
    assert (collected.type, collected.resource_id) == ("artifact.artifact.collected", digest)
    assert (condemned.type, condemned.actor) == ("artifact.blob.condemned", "artifact")
    assert condemned.data == {"count": 2, "size": size}
    assert life.content() == set()
    for table in ("artifacts", "artifact_models", "manifest_files", "blobs", "condemned_blobs", "uploads"):
        assert await life.rows(table) == 0, table
    with pytest.raises(NotFound):
        await life.client.call("GetArtifact", pb.GetArtifactRequest(digest=digest, model=MODEL))


async def test_what_a_version_has_stays_for_ever(life: Life) -> None:
    digest = await life.client.upload(FILES)
    life.service.catalog.ready(VERSION, digest)
    for _ in range(3):
        assert await life.collect(LONG) == Collected()
    assert await life.client.read(VERSION, "conf.json") == b"{}"


async def test_grace_begins_when_the_last_version_is_gone(life: Life) -> None:
    digest = await life.client.upload(FILES)
    await life.acquire(digest)
    life.service.catalog.ready(VERSION, digest)
    await life.collect(LONG)
    life.service.catalog.versions.clear()
    assert await life.collect() == Collected()
    assert await life.collect(GRACE - timedelta(minutes=1)) == Collected()
    assert (await life.collect(timedelta(minutes=2))).artifacts == 1


async def test_a_reference_on_its_way_to_a_version_keeps_the_artifact(life: Life) -> None:
    digest = await life.client.upload(FILES)
    life.now += LONG
    await life.acquire(digest)
    assert await life.collect() == Collected()
    assert await life.collect(timedelta(hours=47)) == Collected()
    assert life.content()
    # The version never came: the reference is dropped, and only then the grace period begins.
    assert await life.collect(timedelta(hours=2)) == Collected()
    assert (await life.collect(LONG)).artifacts == 1


async def test_shared_content_stays_as_long_as_one_artifact_has_it(life: Life) -> None:
    await life.client.upload(FILES)
    kept = await life.client.upload(OTHERS)
    life.service.catalog.ready(VERSION, kept)
    assert await life.collect(LONG) == Collected(1, 1, len(FILES["model.bin"]))
    assert life.content() == {sha(data) for data in OTHERS.values()}
    assert await life.client.read(VERSION, "conf.json") == b"{}"


async def test_nothing_goes_while_the_catalog_is_away(life: Life) -> None:
    await life.client.upload(FILES)
    life.service.catalog.reachable = False
    with pytest.raises(PeerUnavailable):
        await life.collect(LONG)
    assert life.content()


async def test_content_that_was_never_recorded_goes(life: Life) -> None:
    lost, announced = Blob(sha(b"lost"), 4), Blob(sha(b"announced"), 9)
    await life.blobs.put_whole("u1", {lost: b"lost", announced: b"announced"})
    upload = await life.client.begin({"m": b"announced"})
    life.collector._listed = life.now
    assert (await life.collect(timedelta(hours=1))).blobs == 0
    assert lost.sha256 in life.content()
    assert (await life.collect(timedelta(hours=25))).blobs == 1  # old enough by then
    [told] = await life.service.events("artifact.blob.condemned")
    assert told.data == {"count": 1, "size": 4}
    assert lost.sha256 not in life.content()
    assert announced.sha256 in life.content()  # an open upload names it
    assert await life.client.send(missing_pieces(upload, [b"announced"])) == 1
    await life.client.commit(upload.id)


async def test_an_open_upload_keeps_what_it_reuses(life: Life) -> None:
    await life.client.upload(FILES)
    upload = await life.client.begin(OTHERS)
    assert [blob.sha256 for blob in upload.missing] == [sha(OTHERS["model.bin"])]
    assert await life.collect(LONG) == Collected(1, 1, len(FILES["model.bin"]))
    assert life.content() == {sha(b"{}")}
    await life.client.send(missing_pieces(upload, OTHERS.values()))
    life.service.catalog.ready(VERSION, (await life.client.commit(upload.id)).digest)
    assert await life.client.read(VERSION, "conf.json") == b"{}"


async def test_an_upload_stops_a_deletion_that_was_decided(life: Life) -> None:
    await life.client.upload(FILES)

    async def condemn(connection: Any) -> None:
        await connection.execute(text("DELETE FROM manifest_files"))
        await connection.execute(text("INSERT INTO condemned_blobs SELECT sha256, size FROM blobs"))
        await connection.execute(text("DELETE FROM blobs"))

    await life.service.database.in_tx(condemn)
    upload = await life.client.begin(FILES)
    assert len(upload.missing) == 2
    assert await life.rows("condemned_blobs") == 0
    await life.client.send(missing_pieces(upload, FILES.values()))
    await life.collect()
    assert life.content() == {sha(data) for data in FILES.values()}


async def test_an_upload_that_comes_while_content_is_deleted_waits_and_sends_it(life: Life) -> None:
    await life.client.upload(FILES)
    begun: list[asyncio.Task[Any]] = []

    async def begin() -> None:
        begun.append(asyncio.create_task(life.client.begin(FILES)))
        await life.service.database.read(_someone_waits)

    life.blobs.before_delete = begin
    await life.collect(LONG)
    upload = await begun[0]
    assert len(upload.missing) == 2
    await life.client.send(missing_pieces(upload, FILES.values()))
    digest = (await life.client.commit(upload.id)).digest
    life.service.catalog.ready(VERSION, digest)
    await life.collect(LONG)
    for path, data in FILES.items():
        assert await life.client.read(VERSION, path) == data


async def _someone_waits(connection: Any) -> None:
    """Wait until a transaction waits for another one."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while not (await connection.execute(query)).scalar_one():
        await connection.execute(text("SELECT pg_stat_clear_snapshot()"))
        await asyncio.sleep(0.01)


async def test_a_reference_that_comes_at_the_last_moment_wins(life: Life) -> None:
    digest = await life.client.upload(FILES)
    asked = life.catalog.used

    async def used(digests: Any) -> frozenset[str]:
        answer = await asked(digests)
        await life.acquire(digest)
        return answer

    life.catalog.used = used  # type: ignore[method-assign]
    assert await life.collect(LONG) == Collected()
    assert life.content()


async def test_a_reference_that_comes_too_late_is_refused(life: Life) -> None:
    digest = await life.client.upload(FILES)
    assert (await life.collect(LONG)).artifacts == 1
    with pytest.raises(NotFound):
        await life.acquire(digest)


async def test_a_copy_takes_the_artifact_along(life: Life) -> None:
    digest = await life.client.upload(FILES)
    with pytest.raises(NotFound):
        await life.acquire(digest, model_id=WINE)
    await life.acquire(digest, model_id=WINE, source=IRIS)
    await life.acquire(digest, model_id=WINE)
    await life.client.call("GetArtifact", pb.GetArtifactRequest(digest=digest, model=OTHER_MODEL))


async def test_committing_again_begins_the_grace_period_again(life: Life) -> None:
    await life.client.upload(FILES)
    await life.service.database.in_tx(_age_artifacts)
    await life.client.upload(FILES)
    assert await life.collect() == Collected()


async def _age_artifacts(connection: Any) -> None:
    await connection.execute(text("UPDATE artifacts SET unreferenced_since = now() - interval '30 days'"))


async def test_dry_run_tells_and_keeps(life: Life) -> None:
    await life.client.upload(FILES)
    await life.client.upload(OTHERS)
    size = sum(map(len, FILES.values())) + len(OTHERS["model.bin"])
    assert await life.collect(LONG, dry_run=True) == Collected(2, 3, size)
    assert len(life.content()) == 3
    assert await life.collect() == Collected(2, 3, size)


async def test_verify_finds_what_is_lost_short_and_changed(life: Life) -> None:
    files = {"good": b"good", "lost": b"lost", "short": b"too short", "changed": b"changed"}
    digest = await life.client.upload(files)
    assert [progress async for progress in life.verification.verify(ITSELF, "")][-1].damaged == []

    def path(name: str) -> Path:
        hashed = sha(files[name])
        found = life.root / "blobs" / hashed[:2] / hashed
        found.chmod(0o600)
        return found

    path("lost").unlink()
    path("short").write_bytes(b"too")
    path("changed").write_bytes(b"CHANGED")
    last = [progress async for progress in life.verification.verify(ITSELF, digest)][-1]
    assert (last.verified_count, last.total_count) == (4, 4)
    problems = {each.blob.sha256: each.problem for each in last.damaged}
    assert problems == {
        sha(b"lost"): "lost",
        sha(b"too short"): "wrong size",
        sha(b"changed"): "wrong content",
    }
    assert all(each.digests == [digest] for each in last.damaged)


async def test_damaged_content_is_thrown_away_and_comes_back_with_the_next_upload(life: Life) -> None:
    files = {"good": b"good", "changed": b"changed"}
    digest = await life.client.upload(files)
    damaged = life.root / "blobs" / sha(b"changed")[:2] / sha(b"changed")
    damaged.chmod(0o600)
    damaged.write_bytes(b"CHANGED")
    again = await life.client.upload({"changed": b"changed", "other": b"other"})  # nobody knows yet
    assert damaged.read_bytes() == b"CHANGED"

    request = pb.VerifyBlobsRequest(discard_damaged=True)
    found = [
        one for answer in await life.client.call_stream("VerifyBlobs", request) for one in answer.damaged
    ]
    assert [(one.problem, set(one.artifact_digests)) for one in found] == [("wrong content", {digest, again})]
    assert not damaged.exists()
    told = await life.service.events("artifact.artifact.damaged")
    assert {(event.resource_id, event.data["sha256"]) for event in told} == {
        (digest, sha(b"changed")),
        (again, sha(b"changed")),
    }
    with pytest.raises(BlobLost):
        await life.read_all(digest)

    upload = await life.client.begin(files, model=OTHER_MODEL)
    assert [blob.sha256 for blob in upload.missing] == [sha(b"changed")]
    await life.client.upload(files, model=OTHER_MODEL)
    assert await life.read_all(digest) == files
    assert [progress async for progress in life.verification.verify(ITSELF, "")][-1].damaged == []


async def test_damaged_content_that_no_artifact_has_yet_is_told_of_the_system(life: Life) -> None:
    upload = await life.client.begin({"m": b"loose"})
    await life.client.send(missing_pieces(upload, [b"loose"]))
    await life.blobs.delete(sha(b"loose"))
    await life.client.call_stream("VerifyBlobs", pb.VerifyBlobsRequest(discard_damaged=True))
    [told] = await life.service.events("artifact.blob.damaged")
    assert (told.resource_id, told.data["problem"]) == (SYSTEM_ID, "lost")


async def test_admin_calls_by_the_contract(life: Life) -> None:
    for rpc, request in (
        ("GetStorageStatistics", pb.GetStorageStatisticsRequest()),
        ("CollectGarbage", pb.CollectGarbageRequest()),
    ):
        with pytest.raises(PermissionDenied):
            await life.service.client(BOB).call(rpc, request)
    await life.client.upload(FILES)
    await life.client.upload(OTHERS)
    await life.client.begin({"x": b"x"})
    answer = (await life.client.call("GetStorageStatistics", pb.GetStorageStatisticsRequest())).statistics
    logical = sum(map(len, [*FILES.values(), *OTHERS.values()]))
    stored = logical - 2
    assert (answer.artifact_count, answer.logical_size, answer.blob_count) == (2, logical, 3)
    assert (answer.stored_size, answer.open_upload_count) == (stored, 1)
    assert answer.deduplication_ratio == logical / stored
    request = pb.VerifyBlobsRequest()
    steps = [step async for step in life.client.stub.VerifyBlobs(request, metadata=life.client.metadata)]
    assert (steps[-1].verified_count, list(steps[-1].damaged)) == (3, [])
    answer = await life.client.call("CollectGarbage", pb.CollectGarbageRequest(dry_run=True))
    assert answer.artifact_count == 0


async def test_artifacts_are_listed_filtered_and_paged(life: Life) -> None:
    digests = [await life.client.upload({"file": b"x" * size}) for size in (1, 20, 300)]
    await life.client.upload({"file": b"not here"}, model=OTHER_MODEL)

    async def listed(**asked: Any) -> Any:
        return await life.client.call("ListArtifacts", pb.ListArtifactsRequest(model=MODEL, **asked))

    assert [each.digest for each in (await listed()).artifacts] == digests[::-1]
    assert [each.size for each in (await listed(filter="size > 10", order_by="size")).artifacts] == [20, 300]
    first = await listed(page_size=2, order_by="size desc")
    second = await listed(page_size=2, order_by="size desc", page_token=first.next_page_token)
    assert [each.size for each in [*first.artifacts, *second.artifacts]] == [300, 20, 1]
    assert not second.next_page_token
    with pytest.raises(InvalidField, match="filter"):
        await listed(filter="sizes > 10")
    assert entries(FILES)


async def test_content_that_comes_after_its_upload_is_gone_is_not_recorded(life: Life) -> None:
    upload = await life.client.begin(FILES)
    ada = await NameIsToken().verify("ada")

    class Forgetful(LocalBlobStore):
        async def put_whole(self, owner: str, contents: Mapping[Blob, bytes]) -> None:
            await super().put_whole(owner, contents)
            await life.service.database.in_tx(_forget_uploads)

    transfers = Transfers(life.service.database, Forgetful(life.root, reserve=0), lambda: life.now)

    async def pieces() -> AsyncIterator[WholeBlobs]:
        yield WholeBlobs(upload.id, tuple(FILES.values()))

    with pytest.raises(NotFound, match="upload"):
        await transfers.receive(Call(ada, "r"), pieces())
    assert await life.rows("blobs") == 0


async def _forget_uploads(connection: Any) -> None:
    await connection.execute(text("DELETE FROM uploads"))
