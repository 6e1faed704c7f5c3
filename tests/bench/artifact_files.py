"""The files that the artifact benchmark moves, and the plain commands that it compares with."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil

MIB = 1 << 20
SMALL = (1024, 16 * 1024)
_PER_FOLDER = 100
_BLOCK_BYTES = MIB
_LEFT_BYTES = 3 << 30
_STEADY_BYTES = 32 << 30

Place = Callable[[Path], AbstractContextManager[Path]]
"""What becomes of a folder after it was measured: `removed` or `kept`."""


def one_file(folder: Path, size: int) -> Path:
    """Make a folder with one file of random bytes."""
    folder.mkdir(parents=True)
    with (folder / "model.bin").open("wb") as out:
        for start in range(0, size, 16 * MIB):
            out.write(os.urandom(min(16 * MIB, size - start)))
    return folder


def many_files(folder: Path, count: int) -> Path:
    """Make a folder with small files of random bytes and sizes."""
    chance = random.Random(os.urandom(8))
    for number in range(count):
        parent = folder / f"part-{number // _PER_FOLDER:04d}"
        if number % _PER_FOLDER == 0:
            parent.mkdir(parents=True)
        (parent / f"{number:06d}.bin").write_bytes(chance.randbytes(chance.randint(*SMALL)))
    return folder


def sparse_file(folder: Path, size: int) -> Path:
    """Make a folder with one file of any size that takes no room itself; a few bytes make it unlike any other."""
    folder.mkdir(parents=True)
    with (folder / "model.bin").open("wb") as out:
        out.write(os.urandom(64))
        out.truncate(size)
    return folder


def floor(source: Path, target: Path, place: Place) -> float:
    """Seconds that `cp`, making it durable, and `sha256sum` take for a folder, one after the other."""
    script = 'cp -r "$0" "$1" && sync -f "$1" && find "$1" -type f -print0 | xargs -0 sha256sum > /dev/null'
    with place(target):
        return timed(["sh", "-c", script, str(source), str(target)])


@contextmanager
def steady_memory() -> Iterator[None]:
    """Have the host of a virtual machine give all free memory, and keep it from taking it back within this block.

    Many hosts give a page when it is used for the first time, which takes six times as long as using one that was given, and take back
    large blocks that are free for two seconds (free page reporting). So whoever writes a file pays for 1 GiB up to 3 s or nothing,
    by chance. Here every free page is used once, and then all but one of each megabyte are freed: such blocks are too small to be taken.
    """
    size = min(psutil.virtual_memory().available - _LEFT_BYTES, _STEADY_BYTES) // _BLOCK_BYTES * _BLOCK_BYTES
    if size <= 0 or not hasattr(mmap, "MADV_NOHUGEPAGE"):
        yield
        return
    with mmap.mmap(-1, size) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[:: mmap.PAGESIZE] = bytes(size // mmap.PAGESIZE)
        for begin in range(0, size, _BLOCK_BYTES):
            memory.madvise(mmap.MADV_DONTNEED, begin + mmap.PAGESIZE, _BLOCK_BYTES - mmap.PAGESIZE)
        yield


def timed(command: list[str]) -> float:
    """Seconds that a command takes."""
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


@contextmanager
def removed(path: Path) -> Iterator[Path]:
    """Remove a folder at the end, and let the disk finish what it has to do before the next measurement."""
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.sync()


@contextmanager
def kept(path: Path) -> Iterator[Path]:
    """Leave a folder of many files where it is until the benchmark ends.

    ext4 does not use freed inodes again for some minutes, and looks past all of them for each new file: after thousands of files
    were removed, whoever makes files next takes several times as long for it, whether that is we, the floor or MLflow.
    """
    yield path
    os.sync()


def same(first: Path, second: Path) -> bool:
    """Whether two folders hold the same files."""
    return subprocess.run(["diff", "-r", "-q", str(first), str(second)], check=False).returncode == 0
