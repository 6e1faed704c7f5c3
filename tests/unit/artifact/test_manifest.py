"""The published rules: paths and the digest."""

from __future__ import annotations

import hashlib
import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard_artifact.manifest import build, collisions, path_problem
from modelyard_artifact.models import FileEntry
from modelyard_kit.limits import LIMITS

A = hashlib.sha256(b"a").hexdigest()
EMPTY = hashlib.sha256(b"").hexdigest()


def test_digest_is_the_published_text() -> None:
    files = [FileEntry("b.txt", 1, A), FileEntry("a/ü.txt", 0, EMPTY), FileEntry("Z", 1, A)]
    text = f"modelyard-manifest-v1\n{A} 1 Z\n{EMPTY} 0 a/ü.txt\n{A} 1 b.txt\n"
    manifest = build(files)
    assert manifest.digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert [file.path for file in manifest.files] == ["Z", "a/ü.txt", "b.txt"]
    assert manifest.size == 2


def test_known_digest() -> None:
    # A fixed vector: whoever computes the digest elsewhere (client, other languages) must get this one.
    manifest = build([FileEntry("model.bin", 1, A)])
    assert manifest.digest == "sha256:01af22464f32523b0528a3e063aa65e936e2b797c62776d67e58f6fe320c535c"


def test_order_is_that_of_bytes_not_of_code_units() -> None:
    # U+FFFD sorts before U+1F600 in UTF-8, and after it in UTF-16.
    manifest = build([FileEntry("\U0001f600", 1, A), FileEntry("�", 1, A)])
    assert [file.path for file in manifest.files] == ["�", "\U0001f600"]


@given(st.permutations([FileEntry(name, 1, A) for name in ("a", "b/c", "b.d", "ä")]))
def test_order_of_announcement_does_not_matter(files: list[FileEntry]) -> None:
    assert build(files).digest == build(sorted(files, key=lambda file: file.path)).digest


@pytest.mark.parametrize(
    "path", ["a", "a/b.c", ".hidden", "a..b", "...", "with space", "日本/モデル", "a:b", "-rf", "~", "é"]
)
def test_good_paths(path: str) -> None:
    assert path_problem(path) is None


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "empty"),
        ("/etc/passwd", "empty part"),
        ("a/", "empty part"),
        ("a//b", "empty part"),
        ("..", ".."),
        ("a/../b", ".."),
        ("./a", "'.'"),
        ("a\\b", "backslash"),
        ("C:\\x", "backslash"),
        ("a\nb", "control"),
        ("a\x00b", "control"),
        ("a\x7f", "control"),
        ("a\x85b", "control"),
        ("e\u0301", "NFC"),
        ("a" * 1025, "1024"),
        ("ü" * 513, "1024"),
        ("\ud800", "Unicode"),
    ],
)
def test_bad_paths(path: str, says: str) -> None:
    problem = path_problem(path)
    assert problem
    assert says in problem


def test_longest_path() -> None:
    maximum = LIMITS["path_bytes"].maximum
    assert path_problem("ü" * (maximum // 2)) is None
    assert path_problem("ü" * (maximum // 2) + "x") is not None


@given(st.text(min_size=1, max_size=40))
def test_accepted_paths_stay_inside_any_folder(path: str) -> None:
    if path_problem(path) is None:
        pure = PurePosixPath("/root") / path
        assert pure.parts[:2] == ("/", "root")
        assert ".." not in pure.parts
        assert str(pure) == f"/root/{path}"
        assert unicodedata.normalize("NFC", path) == path


@pytest.mark.parametrize(
    ("paths", "index", "says"),
    [
        (["a", "b", "a"], 2, "twice"),
        (["Model.bin", "model.bin"], 1, "only in case"),
        (["d/Ä", "d/ä"], 1, "only in case"),
        (["a", "a/b"], 0, "needs a folder"),
        (["a/b", "A"], 1, "needs a folder"),
        (["a/b/c", "a/b"], 1, "needs a folder"),
    ],
)
def test_collisions(paths: list[str], index: int, says: str) -> None:
    found = list(collisions(paths))
    assert [place for place, _ in found] == [index]
    assert says in found[0][1]


def test_neighbours_do_not_collide() -> None:
    assert list(collisions(["a/b", "a.b", "a-b", "b/a", "a/c"])) == []
