"""Which predictions are being computed, for whatever is written to the log meanwhile.

The model's thread only notes the calls; ids are looked for in them when a line is written, so that predictions pay nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from modelyard_inference.replica.front import Call, Metadata

SERVED: Final[ContextVar[Sequence[Call]]] = ContextVar("modelyard_served", default=())
"""The calls whose rows the model is computing in this thread."""
NO_CALL: Final = Call(None, ())
_HEADER: Final = "x-request-id"
_TRACE_HEADER: Final = "traceparent"
_MAX_ID: Final = 128
_MAX_IDS: Final = 16


@contextmanager
def serving(calls: Sequence[Call]) -> Iterator[None]:
    """Note the calls that are served within the block."""
    token = SERVED.set(calls)
    try:
        yield
    finally:
        SERVED.reset(token)


def request_id_of(metadata: Metadata) -> str:
    """Return the id of a call, the one that the gateway's access log has; empty if it has none."""
    return _told(metadata, _HEADER)


def trace_of(metadata: Metadata) -> str:
    """Return the trace that a call is part of, as W3C Trace Context writes it; empty if it is part of none."""
    return _told(metadata, _TRACE_HEADER)


def _told(metadata: Metadata, wanted: str) -> str:
    for name, value in metadata:
        if name == wanted and isinstance(value, str):
            return value[:_MAX_ID]
    return ""


def request_ids() -> list[str]:
    """Return the ids of the predictions that are being computed, at most 16."""
    return [found for call in SERVED.get()[:_MAX_IDS] if (found := request_id_of(call.metadata))]
