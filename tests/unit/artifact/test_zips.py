"""The bytes around the contents of a zip, also where numbers do not fit into 32 bits."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from modelyard_artifact import zips
from modelyard_artifact.zips import ZipWriter

FILES = {"a/ü.txt": b"hello", "empty": b"", "m.bin": bytes(range(256)) * 1000}


def written(files: dict[str, bytes]) -> bytes:
    writer, out = ZipWriter(), bytearray()
    for name, data in files.items():
        out += writer.begin(name, len(data))
        for start in range(0, len(data), 1000):
            writer.add(data[start : start + 1000])
        out += data + writer.end()
    return bytes(out + writer.close())


def contents(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_zipfile_reads_it() -> None:
    assert contents(written(FILES)) == FILES
    assert contents(written({})) == {}


def test_it_is_the_same_every_time() -> None:
    assert written(FILES) == written(FILES)


def test_zip64_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    # With the bound lowered, every size and every offset takes the way of more than 4 GiB.
    monkeypatch.setattr(zips, "_MAX32", 4)
    monkeypatch.setattr(zips, "_MAX16", 1)
    data = written(FILES)
    monkeypatch.undo()
    assert b"PK\x06\x06" in data
    assert b"PK\x06\x07" in data


def test_a_file_of_five_gib_in_the_directory() -> None:
    size = 5 << 30
    writer = ZipWriter()
    first = writer.begin("large", size)
    assert struct.unpack_from("<HHHHHIII", first, 4)[-2:] == (0xFFFFFFFF, 0xFFFFFFFF)
    entry = writer._current()
    entry.size, writer._offset = size, writer._offset + size
    assert struct.unpack("<4sIQQ", writer.end())[2:] == (size, size)
    second_offset = writer._offset
    out = writer.begin("small", 1)
    writer.add(b"x")
    out += b"x" + writer.end()
    tail = out + writer.close()
    # The reader looks from the end: a file whose beginning is a hole stands for the five GiB before.
    with zipfile.ZipFile(_Sparse(second_offset, tail)) as archive:
        large, small = archive.infolist()
        assert (large.file_size, large.header_offset) == (size, 0)
        assert (small.header_offset, archive.read("small")) == (second_offset, b"x")


class _Sparse(io.RawIOBase):
    """Zeros up to an offset, then bytes."""

    def __init__(self, offset: int, tail: bytes) -> None:
        self._offset, self._tail, self._at = offset, tail, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self._offset + len(self._tail)}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        begin = max(self._at - self._offset, 0)
        zeros = b"" if self._at >= self._offset else bytes(min(max(size, 0), self._offset - self._at))
        rest = self._tail[begin:] if size < 0 else self._tail[begin : begin + size - len(zeros)]
        self._at += len(zeros) + len(rest)
        return zeros + rest


def test_many_files() -> None:
    files = {f"f{number:06}": b"" for number in range(70_000)}
    with zipfile.ZipFile(io.BytesIO(written(files))) as archive:
        assert archive.namelist() == list(files)


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
def test_unzip_reads_it(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(written(FILES))
    done = subprocess.run(["unzip", "-t", "a.zip"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No errors detected" in done.stdout


def test_no_file_was_begun() -> None:
    with pytest.raises(ValueError, match="begun"):
        ZipWriter().end()
