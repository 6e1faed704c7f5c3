"""What one inspection may cost."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the process and of the work in it. Sizes in bytes, times in seconds.

    Attributes:
        wall_seconds: the process is killed after so long.
        cpu_seconds: processor time.
        memory_bytes: address space.
        file_bytes: largest file that is sent and scanned whole; of a larger one only the first `head_bytes`.
        head_bytes: what is sent of a file that is too large.
        total_bytes: what is sent of all files together; of those after it only the head.
        unpacked_bytes: what is unpacked from the archives and compressed files in one file.
        members: members of the archives in one file that are looked at.
        depth: archives in archives.
        findings: findings that are kept.
        formats: files whose format is kept.
    """

    wall_seconds: float = 900.0
    cpu_seconds: int = 600
    memory_bytes: int = 3 * 1024 * MIB
    file_bytes: int = 512 * MIB
    head_bytes: int = MIB
    total_bytes: int = 8 * 1024 * MIB
    unpacked_bytes: int = 1024 * MIB
    members: int = 20_000
    depth: int = 4
    findings: int = 1_000
    formats: int = 10_000
