"""Gives up what the inspection does not need, for good: nothing here can be undone by the process, nor by what it starts.

- Limits of the system: processor time, memory, size of files, number of files, no new processes (for other users than root), no
  core dumps.
- On Linux: killed when its service dies; `no_new_privs`; and a seccomp filter that answers EPERM to sockets, to running another
  program, to signals and to looking into other processes. This needs no privilege. Where the kernel or the machine does not have
  it, the process runs on without, and says so.

What it keeps: it reads files with the rights of the service's user, as Python has to.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelyard_artifact.inspection.bounds import Bounds

_NICE = 10
_OPEN_FILES = 64
_GRACE_SECONDS = 5
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_EPERM = 1
_LOAD, _JUMP_EQUAL, _JUMP_OVER, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_X32 = 0x40000000
"""System calls from this number on are those of another set of the same machine, which no Python uses."""

# Numbers of system calls. clone is not among them, because threads need it.
_X86_64 = {
    "socket": 41, "connect": 42, "accept": 43, "bind": 49, "listen": 50, "socketpair": 53, "fork": 57, "vfork": 58,
    "execve": 59, "kill": 62, "ptrace": 101, "mount": 165, "tkill": 200, "open_by_handle_at": 304, "process_vm_readv": 310,
    "process_vm_writev": 311, "bpf": 321, "execveat": 322, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438,
}  # fmt: skip
_AARCH64 = {
    "mount": 40, "ptrace": 117, "kill": 129, "tkill": 130, "socket": 198, "socketpair": 199, "bind": 200, "listen": 201,
    "accept": 202, "connect": 203, "execve": 221, "open_by_handle_at": 265, "process_vm_readv": 270,
    "process_vm_writev": 271, "bpf": 280, "execveat": 281, "io_uring_setup": 425, "pidfd_open": 434, "pidfd_getfd": 438,
}  # fmt: skip
_MACHINES = {"x86_64": (0xC000003E, _X86_64), "aarch64": (0xC00000B7, _AARCH64)}


def confine(bounds: Bounds) -> bool:
    """Give it all up; return whether system calls are filtered too."""
    os.nice(_NICE)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, bounds.cpu_seconds, grace=_GRACE_SECONDS)
    _limit(resource.RLIMIT_FSIZE, max(bounds.file_bytes, bounds.unpacked_bytes) + 2**20)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    if sys.platform != "linux":
        return False
    _limit(resource.RLIMIT_AS, bounds.memory_bytes)
    _limit(resource.RLIMIT_NPROC, 0)
    with contextlib.suppress(
        OSError
    ):  # the first to go when the machine runs out of memory; not everywhere allowed
        Path("/proc/self/oom_score_adj").write_text("1000")
    return _filter_system_calls()


def _limit(kind: int, wanted: int, *, grace: int = 0) -> None:
    hard = resource.getrlimit(kind)[1]
    soft, last = (
        value if hard == resource.RLIM_INFINITY else min(value, hard) for value in (wanted, wanted + grace)
    )
    resource.setrlimit(kind, (soft, last))


def _filter_system_calls() -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    machine = _MACHINES.get(platform.machine())
    if machine is None or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    program = _program(*machine)
    instructions = ctypes.create_string_buffer(program, len(program))

    class _Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    loaded = _Program(len(program) // 8, ctypes.addressof(instructions))
    return bool(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0) == 0)


def _program(architecture: int, refused: dict[str, int]) -> bytes:
    """The filter: another machine's calls kill the process, the refused ones fail with EPERM, all others are allowed."""
    numbers = sorted(set(refused.values()))

    def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    lines = [
        instruction(_LOAD, 4),
        instruction(_JUMP_EQUAL, architecture, 1, 0),
        instruction(_RETURN, _KILL),
        instruction(_LOAD, 0),
        instruction(_JUMP_OVER, _X32, len(numbers) + 1, 0),
    ]
    lines += [
        instruction(_JUMP_EQUAL, number, len(numbers) - position, 0)
        for position, number in enumerate(numbers)
    ]
    return b"".join([*lines, instruction(_RETURN, _ALLOW), instruction(_RETURN, _ERROR | _EPERM)])
