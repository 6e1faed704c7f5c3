"""Random zips and random damage: what is unpacked is exactly what was packed, or the archive is refused and nothing is there."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.archives import ArchiveRefused, unpack

names = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=12)
hostile = st.sampled_from(
    ["..", "../x", "/x", "C:x", "a\\b", ".", "a/../..", "A", "a", "é", "e\u0301", "a/b", "a/", "con"]
)
files = st.dictionaries(
    st.one_of(names, hostile, st.lists(names, min_size=1, max_size=3).map("/".join)),
    st.binary(max_size=200),
    max_size=6,
)


def packed(content: dict[str, bytes], compression: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.compress_type = compression
            archive.writestr(info, data)
    return out.getvalue()


def unpacked(data: bytes) -> dict[str, bytes] | None:
    """The files that come out; None when it is refused, after proving that nothing else is there."""
    with tempfile.TemporaryDirectory() as folder:
        archive, out = Path(folder, "a.zip"), Path(folder, "out")
        archive.write_bytes(data)
        try:
            unpack(archive, out)
        except ArchiveRefused:
            assert [path.name for path in Path(folder).iterdir()] == ["a.zip"]
            return None
        assert {path.name for path in Path(folder).iterdir()} == {"a.zip", "out"}
        assert not any(path.is_symlink() for path in out.rglob("*"))
        return {
            path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()
        }


@settings(max_examples=150, deadline=None)
@given(content=files, compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_what_is_unpacked_is_what_was_packed(content: dict[str, bytes], compression: int) -> None:
    found = unpacked(packed(content, compression))
    if found is not None:
        assert sorted(found.values()) == sorted(
            data for name, data in content.items() if not name.endswith("/")
        )


@settings(max_examples=300, deadline=None)
@given(
    compression=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]),
    damage=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
def test_damage_never_gives_other_content(compression: int, damage: list[tuple[float, int]]) -> None:
    content = {"score.py": b"def predict(data): ..." * 5, "a/b": b"", "c": bytes(range(256))}
    data = bytearray(packed(content, compression))
    for place, value in damage:
        data[int(place * len(data))] = value
    found = unpacked(bytes(data))
    if found is not None:
        # A name may be another one now, in both of its places; the content has its checksum.
        assert set(found.values()) <= set(content.values())


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=300), end=st.booleans())
def test_noise_is_refused(data: bytes, end: bool) -> None:
    empty = b"PK\x05\x06" + bytes(18)
    assert unpacked(data + (empty if end else b"")) is None
