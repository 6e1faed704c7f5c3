"""Transfers whose client is killed in the middle continue when they are made again."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import uuid
from itertools import pairwise
from pathlib import Path

import pytest

from modelyard._progress import TransferProgress
from modelyard.aio import AsyncClient
from tests.framework.stack import Stack

MIB = 1024 * 1024
SIZE = 96 * MIB
# A client that kills itself when it was told of so many bytes.
CLIENT = """
import json, os, signal, sys
from modelyard import Client
endpoints, token, action, subject, path, limit = json.loads(sys.argv[1])
def told(progress):
    if progress.action == action and progress.done >= limit:
        os.kill(os.getpid(), signal.SIGKILL)
client = Client(endpoints["governance"], token, services=endpoints)
getattr(client.artifacts, action)(subject, path, progress=told)
"""


@pytest.fixture
async def model(admin: AsyncClient, schema: str) -> str:
    """A new model without versions."""
    await admin.models.create(f"{schema}.iris")
    return f"{schema}.iris"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A large file and many small ones that no other test has sent."""
    chance = random.Random(uuid.uuid4().int)
    (tmp_path / "up" / "small").mkdir(parents=True)
    (tmp_path / "up" / "large").write_bytes(chance.randbytes(SIZE))
    for number in range(300):
        (tmp_path / "up" / "small" / str(number)).write_bytes(chance.randbytes(chance.randint(0, 5000)))
    return tmp_path / "up"


def killed(stack: Stack, admin: AsyncClient, action: str, subject: str, path: Path) -> None:
    """Run a transfer in a process that kills itself in the middle of it."""
    endpoints = {name: endpoint.address for name, endpoint in admin._connection._endpoints.items()}
    arguments = json.dumps([endpoints, stack.admin_token, action, subject, str(path), 40 * MIB])
    ended = subprocess.run(
        [sys.executable, "-c", CLIENT, arguments],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


async def test_a_killed_upload_continues(
    stack: Stack, admin: AsyncClient, model: str, folder: Path, tmp_path: Path
) -> None:
    killed(stack, admin, "upload", model, folder)
    told: list[TransferProgress] = []
    artifact = await admin.artifacts.upload(model, folder, progress=told.append)
    sent = next(one for one in reversed(told) if one.action == "upload")
    assert 0 < sent.total < SIZE  # the rest of the large file
    assert sent.done == sent.total
    version = await admin.versions.create(model, artifact.digest)
    down = await admin.artifacts.download(version.name, tmp_path / "down")
    assert tree(down) == tree(folder)


async def test_a_killed_download_never_looks_complete_and_continues(
    stack: Stack,
    admin: AsyncClient,
    model: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODELYARD_CACHE_SIZE", "0")
    artifact = await admin.artifacts.upload(model, folder)
    version = await admin.versions.create(model, artifact.digest)
    killed(stack, admin, "download", version.name, tmp_path / "down")
    assert not (tmp_path / "down").exists()
    [left] = tmp_path.glob(".down.*.partial")
    assert sum(path.stat().st_size for path in left.rglob("*") if path.is_file()) > MIB
    told: list[TransferProgress] = []
    down = await admin.artifacts.download(version.name, tmp_path / "down", progress=told.append)
    assert tree(down) == tree(folder)
    assert told[-1].done == told[-1].total == sum(map(len, tree(folder).values()))
    assert max(one.done - before.done for before, one in pairwise(told)) >= 16 * MIB  # found, not fetched
    assert {path.name for path in tmp_path.iterdir()} == {"up", "down"}


async def test_one_file_a_range_and_a_zip_come_as_they_are(
    admin: AsyncClient, model: str, folder: Path, tmp_path: Path
) -> None:
    import zipfile

    artifact = await admin.artifacts.upload(model, folder)
    version = (await admin.versions.create(model, artifact.digest)).name
    expected = tree(folder)
    assert await admin.artifacts.read(version, "small/7") == expected["small/7"]
    one = await admin.artifacts.download_file(version, "large", tmp_path / "large")
    assert one.read_bytes() == expected["large"]
    async with await admin.artifacts.open(version, "large") as file:
        file.seek(50 * MIB - 3)
        assert await file.read(6) == expected["large"][50 * MIB - 3 : 50 * MIB + 3]
    path = await admin.artifacts.download_archive(version, tmp_path / "all.zip")
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == expected
    assert [found.digest async for found in admin.artifacts.list(model)] == [artifact.digest]


async def test_a_second_version_sends_what_changed(admin: AsyncClient, model: str, folder: Path) -> None:
    await admin.artifacts.upload(model, folder)
    (folder / "small" / "7").write_bytes(b"changed")
    told: list[TransferProgress] = []
    await admin.artifacts.upload(model, folder, progress=told.append)
    assert told[-1] == TransferProgress("upload", 7, 7, 1, 1)
