"""What a front is: the part that speaks HTTP/2 and gRPC framing, and nothing else.

Everything above works on encoded messages, so that one front can take another's place: `Routes` say which method answers
which path, a front carries bytes, deadlines and cancellation, and turns a `DomainError` into a trailers-only answer.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from modelyard_kit.errors import DomainError, Internal

log: Any = structlog.get_logger()

Metadata = Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True)
class Call:
    """What a method may know about the call it answers."""

    deadline: float | None
    """Time of the event loop when the caller gives up; None: never."""
    metadata: Metadata
    """What the caller sent along, names in lower case."""


Unary = Callable[[bytes, Call], Awaitable[bytes]]
"""Answers one message with one; cancelled when the caller is gone. Raises `DomainError`."""
Stream = Callable[[bytes, Call], AsyncGenerator[bytes, None]]
"""Answers one message with many."""
Duplex = Callable[[AsyncIterator[bytes], Call], AsyncGenerator[bytes, None]]
"""Answers many messages with many."""


@dataclass(frozen=True)
class Routes:
    """The methods by their path, `/package.Service/Method`."""

    unary: Mapping[str, Unary]
    streams: Mapping[str, Stream]
    duplex: Mapping[str, Duplex]


class Front(Protocol):
    """A running server."""

    async def start(self) -> None:
        """Listen. Returns when connections are accepted.

        Raises:
            OSError: if the address cannot be used.
        """
        ...

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, wait for the ones in progress at most that long, end the rest."""
        ...


class MakeFront(Protocol):
    """Builds a front."""

    def __call__(self, routes: Routes, *, listen: str, max_message_bytes: int) -> Front:
        """Build a front that will listen on `unix:/path`; larger messages than the limit may be cut off unread."""
        ...


def refusal(error: Exception, path: str, request_id: str) -> DomainError:
    """Return what a caller is told about an exception; one that nobody expected is logged under an id."""
    if isinstance(error, DomainError):
        return error
    error_id = uuid.uuid4().hex
    log.error("call_failed", error_id=error_id, method=path, request_ids=[request_id], exc_info=error)
    return Internal(error_id)
