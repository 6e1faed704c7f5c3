"""The client computes digests and judges paths by itself: both must say the same."""

from __future__ import annotations

import hashlib

from hypothesis import example, given
from hypothesis import strategies as st

from modelyard import _manifest, errors, types
from modelyard_artifact import manifest
from modelyard_artifact.models import FileEntry

SHA = hashlib.sha256(b"x").hexdigest()
PATHS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(st.sets(PATHS, min_size=1, max_size=6))
def test_digest(paths: set[str]) -> None:
    ours = manifest.build(FileEntry(path, 1, SHA) for path in paths)
    theirs = _manifest.manifest_digest(types.FileEntry(path, 1, SHA) for path in paths)
    assert ours.digest == theirs


@given(st.text(st.characters() | st.sampled_from("./\\"), max_size=12))
@example("e\u0301")
@example("\ud800")
@example("a" * 1025)
def test_paths(path: str) -> None:
    try:
        _manifest.check_path(path)
        accepted = True
    except errors.InvalidArgument:
        accepted = False
    assert accepted == (manifest.path_problem(path) is None)
