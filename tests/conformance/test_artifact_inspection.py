"""Inspections on real PostgreSQL, with the real process: asked for by a commit, done by a worker, read over gRPC."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from google.protobuf import json_format
from sqlalchemy import text

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.artifact.v1.artifact_pb2 import Finding, Inspection, IntrospectionTest
from modelyard.api.catalog.v1.catalog_service_pb2 import SetArtifactTestsRequest
from modelyard.api.catalog.v1.model_pb2 import ModelVersion
from modelyard_artifact.blobs.local import LocalBlobStore
from modelyard_artifact.catalog_peer import CatalogPeer
from modelyard_artifact.inspection.bounds import Bounds
from modelyard_artifact.inspection_models import TestsOutcome
from modelyard_artifact.inspections import MAX_ATTEMPTS, InspectionWorker
from modelyard_artifact.inspector import Inspector
from modelyard_artifact.references import Acquire, References
from modelyard_artifact.telling import Telling
from modelyard_catalog.messages import parse_artifact_tests
from modelyard_kit import faults
from modelyard_kit.access import SYSTEM_ID, Effect, Privilege, ResourceGrant
from modelyard_kit.clock import utc_now
from modelyard_kit.errors import InvalidField, NotFound, PermissionDenied
from modelyard_kit.faults import InjectedFault
from modelyard_kit.ids import new_id
from modelyard_kit.limits import LIMITS
from modelyard_kit.outbox import Event, Relay
from modelyard_kit.peers import Peers
from tests.framework.artifact import (
    ADA,
    BOB,
    MODEL,
    OTHER_MODEL,
    ArtifactService,
    FakePeers,
    artifact_service,
)
from tests.unit.artifact.samples import EVIL, safetensors
from tests.unit.client.test_oci_tests import RUNTIME, SCORE

DIGEST = "sha256:" + "0" * 64
OCI = {"score.py": SCORE, "runtime.yaml": RUNTIME, "model.safetensors": safetensors()}


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
async def service(fresh_database: Callable[[str], str], blobs: Path) -> AsyncIterator[ArtifactService]:
    async with artifact_service(fresh_database("modelyard_artifact"), blobs) as running:
        yield running


@pytest.fixture
async def store(service: ArtifactService, blobs: Path) -> AsyncIterator[LocalBlobStore]:
    store = LocalBlobStore(blobs, reserve=0)
    await store.open()
    yield store
    await store.close()


def worker(
    service: ArtifactService, store: LocalBlobStore, *, module: str = "", lease: float = 30.0, **bounds: Any
) -> InspectionWorker:
    inspector = Inspector(store, Bounds(**bounds), **({"module": module} if module else {}))
    return InspectionWorker(service.database, inspector, utc_now, lease=timedelta(seconds=lease))


async def inspection(service: ArtifactService, digest: str, *, model: str = MODEL) -> Inspection:
    request = pb.GetInspectionRequest(digest=digest, model=model)
    return cast("Inspection", (await service.client().call("GetInspection", request)).inspection)


async def inspected(
    service: ArtifactService, store: LocalBlobStore, files: Mapping[str, bytes], **arguments: Any
) -> Inspection:
    """Commit files, let one worker work once, and read what came of it."""
    digest = await service.client().upload(files)
    assert await worker(service, store, **arguments).work()
    return await inspection(service, digest)


async def test_a_commit_asks_for_it_and_a_worker_does_it(
    service: ArtifactService, store: LocalBlobStore
) -> None:
    digest = await service.client().upload(OCI)
    waiting = await inspection(service, digest)
    assert waiting.state == Inspection.STATE_PENDING
    assert await worker(service, store).work()
    found = await inspection(service, digest)
    assert (found.state, found.message, found.oci) == (Inspection.STATE_DONE, "", True)
    assert found.scan == Inspection.SCAN_CLEAN
    assert found.scanner.startswith("picklescan ")
    assert [test.id for test in found.tests][:3] == ["score_py", "runtime_yaml", "score_syntax"]
    assert {test.result for test in found.tests} == {
        IntrospectionTest.RESULT_PASSED,
        IntrospectionTest.RESULT_SKIPPED,
    }
    assert json.loads(found.tests_json)["score_py"]["success"] is True
    formats = {one.path: (one.format, one.may_run_code) for one in found.formats}
    assert formats == {
        "score.py": ("python", True),
        "runtime.yaml": ("yaml", False),
        "model.safetensors": ("safetensors", False),
    }
    assert found.HasField("end_time")
    assert not await worker(service, store).work()


async def test_harmful_content_and_failed_tests_are_told(
    service: ArtifactService, store: LocalBlobStore
) -> None:
    found = await inspected(service, store, {"score.py": b"def predict(): ...", "model.bin": EVIL})
    assert found.scan == Inspection.SCAN_FOUND
    assert [(one.path, one.severity, one.subject) for one in found.findings] == [
        ("model.bin", Finding.SEVERITY_CRITICAL, "posix.system")
    ]
    failures = {test.id for test in found.tests if test.result == IntrospectionTest.RESULT_FAILED}
    assert failures == {"runtime_yaml", "score_load_model", "score_predict_data"}
    events: list[Event] = []

    async def keep(batch: Any) -> None:
        events.extend(batch)

    await Relay(service.database, keep).deliver()
    told = events[-1]
    assert (told.type, told.resource.id, told.actor) == (
        "artifact.artifact.inspected",
        found.artifact_digest,
        ADA,
    )
    assert told.data["scan"] == "FOUND"
    assert told.data["tests"] == "FAILED"
    assert told.data["findings"]["CRITICAL"] == 1


async def test_what_is_no_oci_artifact_has_no_tests(service: ArtifactService, store: LocalBlobStore) -> None:
    found = await inspected(service, store, {"model.safetensors": safetensors(), "empty": b""})
    assert (found.oci, list(found.tests), found.tests_json) == (False, [], "")
    assert found.scan == Inspection.SCAN_CLEAN


async def test_it_is_done_again_when_asked(service: ArtifactService, store: LocalBlobStore) -> None:
    found = await inspected(service, store, OCI)
    service.grants.replace(
        ADA.id,
        ADA.name,
        [ResourceGrant(SYSTEM_ID, privilege, Effect.ALLOW) for privilege in Privilege],
    )
    request = pb.InspectArtifactRequest(digest=found.artifact_digest, model=MODEL)
    again = (await service.client().call("InspectArtifact", request)).inspection
    assert again.state == Inspection.STATE_PENDING
    assert (await service.client().call("InspectArtifact", request)).inspection == again
    [told] = await service.events("artifact.artifact.inspection_requested")
    assert (told.resource_id, told.actor) == (found.artifact_digest, "ada")
    assert await worker(service, store).work()
    assert not await worker(service, store).work()
    after = await inspection(service, found.artifact_digest)
    assert after.end_time.ToDatetime() > found.end_time.ToDatetime()
    after.ClearField("end_time")
    found.ClearField("end_time")
    assert after == found


async def test_the_catalog_is_told_at_least_once_of_what_versions_have(
    service: ArtifactService, store: LocalBlobStore
) -> None:
    telling = Telling(service.database, CatalogPeer(cast("Peers", FakePeers(service.catalog))))
    found = await inspected(service, store, OCI)
    other = await inspected(service, store, {"model.safetensors": safetensors()})
    assert await telling.tell() == 0  # no version has it yet
    for digest in (found.artifact_digest, other.artifact_digest):
        await acquire(service, digest)
    faults.configure("artifact.tests.told=error*1")
    try:
        with pytest.raises(InjectedFault):
            await telling.tell()
    finally:
        faults.configure("")
    assert [await telling.tell(), await telling.tell()] == [1, 0]
    first, second = service.catalog.tests
    assert first == second
    assert (first.artifact_digest, first.artifact_tests) == (
        found.artifact_digest,
        ModelVersion.ARTIFACT_TESTS_PASSED,
    )
    assert json_format.MessageToDict(first.test_results) == json.loads(found.tests_json)

    await acquire(service, found.artifact_digest)  # for a version more: the catalog may have forgotten them
    assert await telling.tell() == 1
    assert service.catalog.tests[-1].sequence > first.sequence


async def test_what_is_told_once_more_while_it_is_told_is_not_forgotten(
    service: ArtifactService, store: LocalBlobStore
) -> None:
    found = await inspected(service, store, OCI)
    await acquire(service, found.artifact_digest)
    peer = CatalogPeer(cast("Peers", FakePeers(service.catalog)))

    class Meanwhile:
        async def set_artifact_tests(self, outcomes: Sequence[TestsOutcome]) -> None:
            await acquire(service, found.artifact_digest)
            await peer.set_artifact_tests(outcomes)

    assert await Telling(service.database, Meanwhile()).tell() == 1
    assert await Telling(service.database, peer).tell() == 1
    assert await Telling(service.database, peer).tell() == 0


async def test_the_catalog_gets_no_more_than_it_takes(service: ArtifactService) -> None:
    peer = CatalogPeer(cast("Peers", FakePeers(service.catalog)))
    text = "x" * LIMITS["metadata_bytes"].maximum
    results = json.dumps({"score_py": {"success": False, "error_msg": text}, "score_run": {"value": "y"}})
    await peer.set_artifact_tests([TestsOutcome(DIGEST, passed=False, results=results, sequence=1)])
    [change] = parse_artifact_tests(SetArtifactTestsRequest(changes=service.catalog.tests))
    assert change.tests.results == {"score_py": {"success": False}, "score_run": {"success": None}}


async def acquire(service: ArtifactService, digest: str) -> None:
    model_id = service.catalog.models[MODEL]
    await References(service.database, utc_now).acquire(Acquire(digest, model_id, new_id(), ""))


async def test_refusals(service: ArtifactService, store: LocalBlobStore) -> None:
    found = await inspected(service, store, {"a": b"x"})
    with pytest.raises(NotFound):
        await inspection(service, found.artifact_digest, model=OTHER_MODEL)
    with pytest.raises(NotFound):
        await inspection(service, "sha256:" + "0" * 64)
    with pytest.raises(InvalidField, match="digest"):
        await inspection(service, "../etc/passwd")
    request = pb.InspectArtifactRequest(digest=found.artifact_digest, model=MODEL)
    with pytest.raises(PermissionDenied):
        await service.client(BOB).call("InspectArtifact", request)


async def test_artifacts_are_listed_by_what_was_found(
    service: ArtifactService, store: LocalBlobStore
) -> None:
    right = await inspected(service, store, OCI)
    wrong = await inspected(service, store, {"runtime.yaml": b"x"})
    evil = await inspected(service, store, {"model": EVIL})
    waiting = await service.client().upload({"a": b"not yet"})

    async def listed(filter_: str) -> set[str]:
        request = pb.ListArtifactsRequest(model=MODEL, filter=filter_)
        return {one.digest for one in (await service.client().call("ListArtifacts", request)).artifacts}

    assert await listed("tests = 'PASSED'") == {right.artifact_digest}
    assert await listed("oci = TRUE") == {right.artifact_digest, wrong.artifact_digest}
    assert await listed("scan = 'FOUND'") == {evil.artifact_digest}
    assert await listed("scan IS NULL") == {waiting}


async def test_workers_share_the_work(service: ArtifactService, store: LocalBlobStore) -> None:
    digests = [await service.client().upload({"f": str(number).encode()}) for number in range(4)]
    done = await asyncio.gather(*(worker(service, store).work() for _ in range(4)))
    assert done == [True] * 4
    for digest in digests:
        assert (await inspection(service, digest)).state == Inspection.STATE_DONE
    attempts = await service.database.read(
        lambda c: c.execute(text("SELECT DISTINCT attempts FROM inspections"))
    )
    assert attempts.scalars().all() == [1]


async def test_of_a_large_file_only_the_beginning_is_looked_at(
    service: ArtifactService, store: LocalBlobStore
) -> None:
    files = {"large": EVIL + bytes(200_000), "tensors": safetensors()[:-4] + bytes(200_000)}
    found = await inspected(service, store, files, file_bytes=100_000, head_bytes=1_000)
    assert found.scan == Inspection.SCAN_FOUND
    assert any("too large" in one.description for one in found.findings)
    assert {one.path: one.may_run_code for one in found.formats} == {"large": True, "tensors": False}


# What the process may do wrong: each program is run in the place of the real one.


async def failure(service: ArtifactService, store: LocalBlobStore, module: str, **bounds: Any) -> str:
    found = await inspected(
        service, store, {"f": os.urandom(3_000_000)}, module=f"_modelyard_test_{module}", **bounds
    )
    assert found.state == Inspection.STATE_FAILED
    assert not found.tests
    assert found.scan == Inspection.SCAN_UNSPECIFIED
    return found.message


class Programs:
    """Stand-ins for the process, in a folder that its Python finds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, code: str) -> None:
        (self.folder / f"_modelyard_test_{name}.py").write_text(
            "import sys, json\nfrom modelyard_artifact.inspection.bounds import Bounds\n"
            "from modelyard_artifact.inspection.confine import confine\n"
            "filtered = confine(Bounds(**json.loads(sys.argv[1])))\n" + code
        )


@pytest.fixture
def programs(tmp_path: Path) -> Any:
    """`python -I` takes modules from its installation alone, so a link to the folder has to be there."""
    site = Path(next(path for path in sys.path if path.endswith("site-packages")))
    folder = tmp_path / "programs"
    folder.mkdir()
    link = site / f"_modelyard_test_{os.getpid()}.pth"
    link.write_text(f"{folder}\n")
    try:
        yield Programs(folder)
    finally:
        link.unlink()


@pytest.mark.parametrize(
    ("code", "bounds", "told"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", {}, ""),
        ("import os; os.abort()", {}, "ended by SIGABRT"),
        ("raise RuntimeError('went wrong')", {}, "ended with code 1: RuntimeError: went wrong"),
        ("x = bytearray(1 << 40)", {}, "needed more than 3072 MiB of memory"),
        (
            "x = [bytes(1 << 20) for _ in range(1 << 20)]",
            {"memory_bytes": 1 << 30},
            "needed more than 1024 MiB",
        ),
        ("while True: pass", {"cpu_seconds": 1}, "more than 1 s of processor time"),
        ("import time; time.sleep(60)", {"wall_seconds": 2.0}, "took longer than 2 s"),
        ("sys.stdout.write('nonsense')", {}, "cannot be understood"),
        ("sys.stdout.write('{}')", {}, "cannot be understood"),
        ("sys.stdout.write('[' * 10**6)", {}, "cannot be understood"),
        ("while True: sys.stdout.write('x' * 2**16)", {"wall_seconds": 3.0}, "took longer"),
        (
            # a process of its own that holds the pipe, where it may have one: others than root may not
            "import contextlib, os\nwith contextlib.suppress(OSError): os.fork()\nwhile True: sys.stdout.write('x' * 2**16)",
            {"wall_seconds": 3.0},
            "took longer",
        ),
    ],
)
async def test_a_process_that_goes_wrong_is_a_failed_inspection(
    service: ArtifactService, store: LocalBlobStore, programs: Programs, code: str, bounds: Any, told: str
) -> None:
    programs.add("wrong", code)
    assert told in await failure(service, store, "wrong", **bounds)
    # And the service is well.
    assert (await inspected(service, store, {"g": b"x"})).state == Inspection.STATE_DONE


async def test_the_process_cannot_reach_out(
    service: ArtifactService, store: LocalBlobStore, programs: Programs
) -> None:
    code = """
import os, socket, subprocess
tried = {}
def attempt(name, action):
    try:
        action()
        tried[name] = "done"
    except OSError as error:
        tried[name] = type(error).__name__
attempt("socket", lambda: socket.socket())
attempt("unix", lambda: socket.socket(socket.AF_UNIX))
attempt("pair", lambda: socket.socketpair())
attempt("exec", lambda: os.execv("/bin/true", ["true"]))
attempt("run", lambda: subprocess.run(["/bin/true"]))
attempt("kill", lambda: os.kill(os.getppid(), 0))
attempt("file", lambda: open("big", "wb").truncate(1 << 40))
raise SystemExit(json.dumps([filtered, sorted(tried.items()), sorted(os.environ), os.nice(0) >= 10]))
"""
    programs.add("reach", code)
    message = await failure(service, store, "reach")
    filtered, tried, environment, nice = json.loads(message.partition(": ")[2])
    if not filtered:
        pytest.skip("this kernel or machine has no seccomp filters")
    assert {name: result for name, result in tried if result == "done"} == {}
    assert set(environment) <= {"TMPDIR", "LANG", "LD_LIBRARY_PATH", "LC_CTYPE"}
    assert nice


async def test_lost_content_is_a_failed_inspection(
    service: ArtifactService, store: LocalBlobStore, blobs: Path
) -> None:
    digest = await service.client().upload({"f": b"content"})
    for path in (blobs / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    assert await worker(service, store).work()
    found = await inspection(service, digest)
    assert found.state == Inspection.STATE_FAILED
    assert found.message.startswith("blob ")


@pytest.mark.parametrize("error", [OSError("the disk is away"), RuntimeError("of an engine")])
async def test_content_that_cannot_be_read_now_is_tried_again(
    service: ArtifactService, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    digest = await service.client().upload({"f": b"content"})

    async def broken(*_: Any) -> AsyncIterator[bytes]:
        raise error
        yield b""

    with monkeypatch.context() as patched:
        patched.setattr(LocalBlobStore, "read", broken)
        assert await worker(service, store).work()
    assert (await inspection(service, digest)).state == Inspection.STATE_PENDING
    assert not await worker(service, store).work()  # only after a while
    await due(service)
    assert await worker(service, store).work()
    assert (await inspection(service, digest)).state == Inspection.STATE_DONE


async def due(service: ArtifactService) -> None:
    """Let every lease run out."""
    await service.database.in_tx(
        lambda c: c.execute(text("UPDATE inspections SET lease_until = '-infinity'"))
    )


async def test_one_that_never_ends_is_given_up(service: ArtifactService, store: LocalBlobStore) -> None:
    digest = await service.client().upload({"f": b"content"})
    change = text(f"UPDATE inspections SET attempts = {MAX_ATTEMPTS}")
    await service.database.in_tx(lambda c: c.execute(change))
    assert await worker(service, store).work()
    found = await inspection(service, digest)
    assert found.state == Inspection.STATE_FAILED
    assert "begun 5 times" in found.message


async def test_a_worker_that_is_stopped_gives_back_what_it_has(
    service: ArtifactService, store: LocalBlobStore, programs: Programs
) -> None:
    programs.add("slow", "import os, time; open('started', 'w').close(); time.sleep(60)")
    digest = await service.client().upload({"f": b"content"})
    task = asyncio.create_task(worker(service, store, module="_modelyard_test_slow").work())
    await running(service)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await worker(service, store).work()
    assert (await inspection(service, digest)).state == Inspection.STATE_DONE


async def running(service: ArtifactService) -> None:
    """Wait until some worker has taken something."""
    query = text("SELECT count(*) FROM inspections WHERE lease_owner IS NOT NULL")
    while not (await service.database.read(lambda c: c.execute(query))).scalar_one():
        await asyncio.sleep(0.05)


async def test_a_worker_that_lost_its_lease_writes_nothing(
    service: ArtifactService, store: LocalBlobStore, programs: Programs
) -> None:
    programs.add("slow", "import time; time.sleep(60)")
    digest = await service.client().upload({"f": b"content"})
    slow = asyncio.create_task(worker(service, store, module="_modelyard_test_slow", lease=0.6).work())
    await running(service)
    await service.database.in_tx(lambda c: c.execute(text("UPDATE inspections SET lease_owner = 'other'")))
    assert await slow
    assert (await inspection(service, digest)).state == Inspection.STATE_PENDING
    await due(service)
    assert await worker(service, store).work()
    assert (await inspection(service, digest)).state == Inspection.STATE_DONE


async def test_a_killed_process_is_noticed_at_once(
    service: ArtifactService, store: LocalBlobStore, programs: Programs
) -> None:
    programs.add(
        "slow",
        f"import os, time; open({str(programs.folder / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)",
    )
    digest = await service.client().upload({"f": b"content"})
    task = asyncio.create_task(worker(service, store, module="_modelyard_test_slow").work())
    pid = programs.folder / "pid"
    while not (pid.exists() and pid.read_text()):
        await asyncio.sleep(0.05)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert await task
    assert "ended by SIGKILL" in (await inspection(service, digest)).message
