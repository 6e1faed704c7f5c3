"""Processes by id: whether they live, since when, and their command; from /proc where there is one, else from ps."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

_PROC = Path("/proc/self/stat")
_LOOKS = 100
"""How often to look for a command that is empty, a millisecond apart: to become another program takes a part of one."""


def start_time(process_id: int) -> str:
    """Return when a process started, as text to compare for equality; empty if no such process lives.

    A process that has ended and was not yet collected by its parent does not live.
    """
    if _PROC.exists():
        return _start_time_linux(process_id)
    state, _, started = _ps(process_id, "stat=,lstart=").partition(" ")
    return "" if state.startswith("Z") else started.strip()


def command_line(process_id: int) -> str:
    """Return the command of a process with its arguments; empty if no such process lives, or it has none, as the kernel's own."""
    if not _PROC.exists():
        return _ps(process_id, "args=")
    for _ in range(_LOOKS):
        found = _command_line_linux(process_id)
        if found or not start_time(process_id):
            return found
        time.sleep(0.001)  # at the moment in which a process becomes another program it has none
    return ""


def collect(process_id: int) -> tuple[bool, int | None]:
    """Take the exit status of an ended child, so that nothing of it remains.

    Returns:
        Whether it is a child that is still ending (its threads end one by one), and its exit code if it was taken now:
        negative for a signal, None if it is no child, was taken before, or has not ended.
    """
    try:
        found, status = os.waitpid(process_id, os.WNOHANG)
    except ChildProcessError:
        return False, None
    return (False, os.waitstatus_to_exitcode(status)) if found else (True, None)


def _command_line_linux(process_id: int) -> str:
    try:
        return Path(f"/proc/{process_id}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _start_time_linux(process_id: int) -> str:
    try:
        text = Path(f"/proc/{process_id}/stat").read_text()
    except OSError:
        return ""
    # The second field is the command in parentheses and may hold anything; state and start time (fields 3 and 22) follow.
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _ps(process_id: int, columns: str) -> str:
    command = ["ps", "-o", columns, "-p", str(process_id)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603 - fixed command
