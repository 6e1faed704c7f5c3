"""Models that run out of memory, by what their libraries say."""

from __future__ import annotations

import pytest

from modelyard_inference.replica.engine import _is_short_of_memory


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (RuntimeError("std::bad_alloc"), True),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:118] can't allocate memory: you tried to allocate 8 bytes"
            ),
            True,
        ),
        # torch.OutOfMemoryError, a RuntimeError
        (
            RuntimeError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB"
            ),
            True,
        ),
        (RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("memory"), False),
    ],
)
def test_who_is_short_of_memory(error: Exception, short: bool) -> None:
    assert _is_short_of_memory(error) is short
