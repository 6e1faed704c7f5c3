"""How fast artifacts go in and come out, and what that costs, against plain commands, plain S3, and MLflow's proxy.

    python -m tests.bench.bench_artifacts [--rounds 2] [--size 1GiB] [--files 10000] [--only small|large|S3] [--large 20GiB] [--quick]

Everything is compared in the same run on the same files, fresh ones for each round:

* `floor`: `cp -r`, `sync -f` and `sha256sum` on the same disk, one after the other. Modelyard's times hold the same work:
  hashing here, sending through Envoy, hashing there, fsync before anything is called stored; and a download is hashed,
  synced, and appears at once.
* `plain S3`: boto3's upload_file and download_file to the same server, a SeaweedFS on this disk, which like AWS checks the
  SHA-256 of what is put. Modelyard's times hold the hashing here and the proof of the hash there.
* `MLflow`: log_artifacts and download_artifacts through `mlflow server --serve-artifacts`, which hash nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from modelyard._cache import parse_size
from modelyard._progress import TransferProgress
from modelyard.aio import AsyncClient
from tests.bench import artifact_mlflow
from tests.bench.artifact_files import (
    MIB,
    Place,
    floor,
    kept,
    many_files,
    one_file,
    removed,
    same,
    sparse_file,
    steady_memory,
)
from tests.bench.artifact_report import Results, report
from tests.framework import folders
from tests.framework.s3 import BUCKET, ENVIRONMENT, KEY, SECRET, S3Server, seaweedfs
from tests.framework.stack import Processes

MODEL = "bench.ml.model"
_CHANGED_PERCENT = 1


@dataclass
class Bench:
    """Where everything is, and what was measured."""

    arguments: argparse.Namespace
    folder: Path
    results: Results = field(default_factory=Results)

    @property
    def where(self) -> str:
        """Folder on the disk that is measured."""
        return str(self.arguments.folder)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Time what is done within the block."""
        start = time.perf_counter()
        yield
        self.results.add(name, time.perf_counter() - start)

    def say(self, text: str) -> None:
        """Tell what is done at the moment."""
        print(f"  {text}", file=sys.stderr, flush=True)

    def kinds(self) -> list[tuple[str, Callable[[Path], Path]]]:
        """What is moved: the name of each kind and what makes it."""
        size, count = self.arguments.size, self.arguments.files
        kinds: dict[str, Callable[[Path], Path]] = {
            "large": lambda folder: one_file(folder, size),
            "small": lambda folder: many_files(folder, count),
        }
        return [(kind, make) for kind, make in kinds.items() if self.arguments.only in (None, kind)]


def main() -> None:
    """Run the benchmark and print tables and goals."""
    arguments = _arguments()
    os.environ.update(ENVIRONMENT)
    # A client alone has a seventh of the objects that this process has loaded for the services: they shall not be looked at for what it makes.
    gc.collect()
    gc.freeze()
    with (
        steady_memory(),
        tempfile.TemporaryDirectory(prefix="modelyard-bench-", dir=arguments.folder) as folder,
    ):
        bench = Bench(arguments, Path(folder))
        if arguments.only != "S3":
            _local(bench)
        if not arguments.no_s3:
            _s3(bench)
    report(bench.results, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    size = lambda text: parse_size(text, "size")  # noqa: E731
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each kind")
    parser.add_argument("--size", type=size, default=2**30, help="size of the one file")
    parser.add_argument(
        "--only",
        choices=("large", "small", "S3"),
        help="S3, or one kind on the local disk: no MLflow, no memory, nothing else",
    )
    parser.add_argument("--files", type=int, default=10_000, help="number of small files, 1 to 16 KiB each")
    parser.add_argument(
        "--large", type=size, default=20 * 2**30, help="size for the measurement of memory; 0: none"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(folders.ON_DISK),
        help="where files and the store are made; needs three times --size",
    )
    parser.add_argument("--no-mlflow", action="store_true", help="without MLflow")
    parser.add_argument("--no-s3", action="store_true", help="without S3")
    parser.add_argument("--quick", action="store_true", help="small and once, to see that it runs; no goals")
    arguments = parser.parse_args()
    if arguments.only:
        arguments.no_s3 = arguments.only != "S3"
        arguments.no_mlflow = True
        arguments.large = 0
    if arguments.quick:
        arguments.rounds, arguments.size, arguments.files, arguments.large = 1, 32 * MIB, 200, 64 * MIB
    return arguments


def _local(bench: Bench) -> None:
    """The local store against the floor and against MLflow; memory; a second version."""
    with ExitStack() as stack:
        processes = stack.enter_context(Processes.start(where=bench.where))
        python = None if bench.arguments.no_mlflow else artifact_mlflow.install()
        mlflow = (
            stack.enter_context(artifact_mlflow.running(python, bench.folder / "mlflow")) if python else None
        )
        if python:
            bench.results.mlflow = artifact_mlflow.version(python)
        elif not bench.arguments.no_mlflow:
            bench.say("MLflow cannot be installed here: left out")
        asyncio.run(_local_rounds(bench, processes, mlflow))


async def _local_rounds(bench: Bench, processes: Processes, mlflow: artifact_mlflow.Mlflow | None) -> None:
    async with processes.admin() as client:
        await _prepare(client)
        for number in range(bench.arguments.rounds):
            for kind, make in bench.kinds():
                bench.say(f"round {number + 1}, {kind}")
                folder, place = bench.folder / f"{kind}-{number}", kept if kind == "small" else removed
                with place(folder / "source") as source:
                    await asyncio.to_thread(make, source)
                    os.sync()
                    seconds = await asyncio.to_thread(floor, source, folder / "floor", place)
                    bench.results.add(f"floor {kind}", seconds)
                    await _ours(bench, client, kind, source, place)
                    if mlflow and number == 0:  # once: 10,000 files take it minutes
                        await asyncio.to_thread(_theirs, bench, mlflow, kind, source, place)
        if not bench.arguments.only:
            await _second_version(bench, client)
        if bench.arguments.large:
            await _memory(bench, client, processes)


async def _prepare(client: AsyncClient) -> None:
    await client.catalogs.create("bench")
    await client.schemas.create("bench.ml")
    await client.models.create(MODEL)


async def _ours(bench: Bench, client: AsyncClient, kind: str, source: Path, place: Place) -> None:
    with bench.measured(f"upload {kind}"):
        artifact = await client.artifacts.upload(MODEL, source, progress=False)
    version = await client.versions.create(MODEL, artifact.digest)
    await client.inspections.wait(
        artifact.digest, model=MODEL
    )  # it follows every commit, and is no part of either
    with place(source.parent / "target") as target, _empty_cache(source.parent / "cache", place):
        with bench.measured(f"download {kind}"):
            await client.artifacts.download(version.name, target, progress=False)
        if not await asyncio.to_thread(same, source, target):
            sys.exit(f"{kind}: what came back is not what was sent")


def _theirs(bench: Bench, mlflow: artifact_mlflow.Mlflow, kind: str, source: Path, place: Place) -> None:
    seconds, run = mlflow.upload(source)
    bench.results.add(f"MLflow upload {kind}", seconds)
    with place(source.parent / "theirs") as target:
        bench.results.add(f"MLflow download {kind}", mlflow.download(run, target))


async def _second_version(bench: Bench, client: AsyncClient) -> None:
    """Change some files of many and upload again: bytes that were sent, by what the store said that it lacks."""
    bench.say("a second version")
    with removed(bench.folder / "source") as source:
        await asyncio.to_thread(many_files, source, bench.arguments.files)
        await client.artifacts.upload(MODEL, source, progress=False)
        paths = sorted(path for path in source.rglob("*") if path.is_file())
        changed = paths[:: 100 // _CHANGED_PERCENT]
        for path in changed:
            path.write_bytes(os.urandom(path.stat().st_size))
        told: list[TransferProgress] = []
        await client.artifacts.upload(MODEL, source, progress=told.append)
        sent = [one for one in told if one.action == "upload"][-1]
        bench.results.sent, bench.results.changed = sent.done, sum(path.stat().st_size for path in changed)


async def _memory(bench: Bench, client: AsyncClient, processes: Processes) -> None:
    """Upload something huge and watch the resident memory of the service."""
    size = bench.arguments.large
    free = shutil.disk_usage(bench.folder).free
    if free < size + 2 * 2**30:
        bench.say(
            f"memory: {size / 2**30:.0f} GiB do not fit into {free / 2**30:.0f} GiB that are free: left out"
        )
        return
    bench.say(f"memory of the service while {size / 2**30:.1f} GiB go in")
    with removed(bench.folder / "source") as source:
        await client.artifacts.upload(MODEL, one_file(source, 64 * MIB), progress=False)
    with removed(bench.folder / "source") as source, _peak(processes.process("artifact").pid) as growth:
        await asyncio.to_thread(sparse_file, source, size)
        start = time.perf_counter()
        await client.artifacts.upload(MODEL, source, progress=False)
        bench.results.add("upload huge", time.perf_counter() - start)
        bench.results.huge_bytes = size
    bench.results.memory_mib = growth() / MIB


@contextmanager
def _peak(pid: int) -> Iterator[Callable[[], int]]:
    """Watch a process; what is given tells how many bytes its resident memory grew at most."""
    process = psutil.Process(pid)
    before = process.memory_info().rss
    highest = before
    stop = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not stop.wait(0.05):
            highest = max(highest, process.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield lambda: highest - before
    finally:
        stop.set()
        thread.join()


def _s3(bench: Bench) -> None:
    """Direct transfer against boto3's own, to the same server."""
    with seaweedfs() as server:
        settings = {
            "blobs": f"s3://{BUCKET}",
            "s3_endpoint": server.endpoint,
            "staging": str(bench.folder / "staging"),
        }
        with Processes.start(where=bench.where, **settings) as processes:
            asyncio.run(_s3_rounds(bench, processes, server))


async def _s3_rounds(bench: Bench, processes: Processes, server: S3Server) -> None:
    async with processes.admin() as client:
        await _prepare(client)
        for number in range(bench.arguments.rounds):
            bench.say(f"round {number + 1}, S3")
            with removed(bench.folder / "source") as source:
                await asyncio.to_thread(one_file, source, bench.arguments.size)
                os.sync()
                await asyncio.to_thread(_plain_s3, bench, server, source / "model.bin")
                await _ours(bench, client, "S3", source, removed)


def _plain_s3(bench: Bench, server: S3Server, path: Path) -> None:
    import boto3

    client: Any = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )
    with bench.measured("plain upload S3"):
        client.upload_file(str(path), BUCKET, "plain")
    with removed(bench.folder / "plain") as target:
        target.mkdir()
        with bench.measured("plain download S3"):
            client.download_file(BUCKET, "plain", str(target / "model.bin"))
    client.delete_object(Bucket=BUCKET, Key="plain")
    client.close()


@contextmanager
def _empty_cache(folder: Path, place: Place) -> Iterator[None]:
    """Give the client an empty cache of its own, so that a download downloads."""
    os.environ["MODELYARD_CACHE"] = str(folder)
    try:
        with place(folder):
            yield
    finally:
        del os.environ["MODELYARD_CACHE"]


if __name__ == "__main__":
    main()
