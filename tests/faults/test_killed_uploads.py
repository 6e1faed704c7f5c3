"""kill -9 of what an upload goes through, in its middle: the upload goes on by itself, and what is committed is whole."""

from __future__ import annotations

import os
import random
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard._progress import TransferProgress
from modelyard.aio import AsyncClient
from modelyard_suite.home import Running
from modelyard_suite.supervisor import is_alive
from tests.framework.stack import Processes
from tests.framework.waiting import eventually

MIB = 1024 * 1024


def large(folder: Path) -> None:
    folder.mkdir()
    (folder / "weights").write_bytes(os.urandom(48 * MIB))


def small(folder: Path) -> None:
    chance = random.Random(uuid.uuid4().int)
    for number in range(3_000):
        path = folder / f"part-{number // 100}" / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randint(1, 8_000)))


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


async def new_model(admin: AsyncClient) -> str:
    catalog = f"c{uuid.uuid4().hex[:8]}"
    await admin.catalogs.create(catalog)
    await admin.schemas.create(f"{catalog}.ml")
    return (await admin.models.create(f"{catalog}.ml.model")).name


async def back(processes: Processes, victim: str, before: Running) -> None:
    """Wait until a killed process runs again."""

    def runs() -> bool:
        now = processes.process(victim)
        return now.pid != before.pid and is_alive(now)

    await eventually(runs)


@pytest.mark.parametrize("make", [large, small])
@pytest.mark.parametrize("victim", ["artifact", "envoy"])
async def test_an_upload_outlasts_it(
    processes: Processes, tmp_path: Path, make: Callable[[Path], None], victim: str
) -> None:
    make(tmp_path / "up")
    before = processes.process(victim)
    told: list[TransferProgress] = []

    def kill(progress: TransferProgress) -> None:
        if progress.action == "upload":
            if not told and progress.done > progress.total // 3:
                os.kill(before.pid, signal.SIGKILL)
            if told or progress.done > progress.total // 3:
                told.append(progress)

    async with processes.admin() as admin:
        model = await new_model(admin)
        artifact = await admin.artifacts.upload(model, tmp_path / "up", progress=kill)
        assert told[0].done < told[0].total == told[-1].done
        await back(processes, victim, before)
        version = await admin.versions.create(model, artifact.digest)
        await admin.artifacts.download(version.name, tmp_path / "down")
        assert tree(tmp_path / "down") == tree(tmp_path / "up")
        checked = [progress async for progress in admin.storage.verify()]
        assert not any(progress.damaged for progress in checked)


@pytest.mark.parametrize("victim", ["artifact", "envoy"])
async def test_a_commit_outlasts_it(processes: Processes, tmp_path: Path, victim: str) -> None:
    small(tmp_path / "up")
    before = processes.process(victim)

    def kill(progress: TransferProgress) -> None:
        if progress.action == "upload" and progress.files_done == progress.files_total:
            os.kill(before.pid, signal.SIGKILL)

    async with processes.admin() as admin:
        model = await new_model(admin)
        artifact = await admin.artifacts.upload(model, tmp_path / "up", progress=kill)
        await back(processes, victim, before)
        assert (await admin.artifacts.get(artifact.digest, model=model)).file_count == 3_000
