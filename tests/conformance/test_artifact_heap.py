"""The memory of the artifact service, in a process of its own: settings of the C library are for a whole process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource
from modelyard_artifact import heap

def receive():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        messages = [b"x" * (1 << 20) for _ in range(8)]
        del messages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

receive()
before = receive()
kept = heap.keep_freed()
receive()
print(before, kept, receive())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has no such settings")
def test_memory_of_messages_is_used_again() -> None:
    ran = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True)
    before, kept, after = ran.stdout.split()
    assert kept == "True"
    assert int(before) > 50 * 1_000  # pages of 4 KiB that are handed out again and again
    assert int(after) < 50
