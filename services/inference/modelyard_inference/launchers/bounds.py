"""What a process of this machine may use, as an ordinary user can see to it: cores by affinity, memory by RLIMIT_DATA.

The kernel counts in RLIMIT_DATA what a process can write to and shares with nobody: heap, anonymous mappings, stacks of threads; not
the files it maps to read, and not shared memory.
"""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from modelyard_inference.replica.config import ReplicaConfig

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def threads_environment(config: ReplicaConfig) -> dict[str, str]:
    """Return variables by which numeric libraries start as many threads as they may for a prediction; none without a bound."""
    return dict.fromkeys(_THREADS, str(config.threads)) if config.cpus else {}


def data_limit(memory_bytes: int) -> str:
    """Return a bound of memory as `ulimit -d` takes it; empty for none. What binds this process binds its children anyway."""
    if not memory_bytes:
        return ""
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = memory_bytes if most == resource.RLIM_INFINITY else min(memory_bytes, most)
    return str(allowed // 1024)


@contextmanager
def on_cores(cpus: int, others: Iterable[int]) -> Iterator[None]:
    """Let what is started in this block, by this thread, use so many cores: those that the fewest of `others` may use.

    Without a bound, with fewer cores than it, or on a system that knows no affinity (macOS), nothing is bound.

    Args:
        cpus: how many; 0 for no bound.
        others: ids of the processes to keep out of the way of.
    """
    if sys.platform != "linux" or not 0 < cpus < len(os.sched_getaffinity(0)):
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _least_used(own, cpus, others))
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def _least_used(cores: set[int], wanted: int, others: Iterable[int]) -> set[int]:
    used = Counter[int]()
    for process_id in others:
        try:
            used.update(os.sched_getaffinity(process_id))
        except ProcessLookupError:
            continue  # it has ended
    return set(sorted(cores, key=lambda core: (used[core], core))[:wanted])
