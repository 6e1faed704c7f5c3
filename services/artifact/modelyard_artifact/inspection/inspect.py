"""One inspection: every file scanned, the introspection tests run when it is an OCI artifact."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

from modelyard.oci import score_py
from modelyard.oci.table import RUNTIME, SCORE
from modelyard.oci.tests import is_oci, run
from modelyard.oci.tree import MemoryTree
from modelyard_artifact.inspection import frames
from modelyard_artifact.inspection.scanner import SCANNER, Scanner

if TYPE_CHECKING:
    from modelyard_artifact.inspection.bounds import Bounds


def inspect(stream: IO[bytes], bounds: Bounds) -> dict[str, Any]:
    """Read all files of an artifact and say what they are, as JSON values.

    Raises:
        EOFError: the files end too early.
    """
    scanner = Scanner(bounds)
    files: dict[str, bytes] = {}
    for frame, file in frames.read(stream):
        # Of the others only the names matter to the tests.
        files[frame.path] = file.read(score_py.MAX_BYTES + 1) if frame.path in {SCORE, RUNTIME} else b""
        file.seek(0)
        scanner.scan(frame.path, file, whole=frame.whole)
    return {"scanner": SCANNER, **scanner.result(), **_tests(files)}


def _tests(files: dict[str, bytes]) -> dict[str, Any]:
    if not is_oci(list(files)):
        return {"oci": False, "tests": [], "tests_json": ""}
    report = run(MemoryTree(files))
    tests = [
        {
            "id": test.id,
            "category": test.category,
            "description": test.description,
            "result": test.result.value,
            "message": test.message,
            "value": test.value,
        }
        for test in report.tests
    ]
    return {"oci": True, "tests": tests, "tests_json": report.to_json()}
