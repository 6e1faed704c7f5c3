"""The change feed: every change that you may see, as it happens."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

from modelyard._convert import from_proto
from modelyard._namespace import Namespace
from modelyard._watch import CALL_SECONDS, follow
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.types import Event

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from modelyard._connection import Connection


class AsyncEventWatch:
    """Events without an end: `async for event in watch`.

    A lost connection is made again from where it broke off, so an event may come twice; its `id` tells. Those of one
    resource come in the order they happened.
    """

    def __init__(self, connection: Connection, request: pb.WatchEventsRequest) -> None:
        self._connection = connection
        self._request = request
        self._events = self._follow()
        self._closed = False

    @property
    def resume_token(self) -> str:
        """Give it to `events.watch` to go on after the events taken so far, in another process or year.

        It moves on when the next event is asked for: an event that you are still dealing with comes again.
        """
        return self._request.resume_token

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        if self._closed:
            raise StopAsyncIteration
        try:
            return await anext(self._events)
        except asyncio.CancelledError:
            self._events = self._follow()  # whoever only lost patience may ask again
            raise

    async def aclose(self) -> None:
        """End the watch."""
        self._closed = True
        await self._events.aclose()

    async def _follow(self) -> AsyncGenerator[Event]:
        method = self._connection.catalog.WatchEvents
        async with aclosing(
            follow(lambda: self._connection.receive(method, self._request, timeout=CALL_SECONDS))
        ) as answers:
            async for answer in answers:
                for event in answer.events:
                    yield from_proto(Event, event)
                self._request.resume_token = answer.resume_token


class AsyncEvents(Namespace):
    """`client.events`: every change, as it happens."""

    def watch(
        self,
        resource: str = "",
        *,
        types: Sequence[str] = (),
        resume_token: str = "",
        from_beginning: bool = False,
    ) -> AsyncEventWatch:
        """Follow what changes, without an end, over lost connections and restarts of the services.

        Args:
            resource: Only what concerns this catalog, schema or model, or is inside it; by default everything you may
                see.
            types: Only these types, `catalog.alias.moved`; `catalog.alias.*` means all that begin so.
            resume_token: Go on where an earlier watch was; by default begin now.
            from_beginning: Begin with the oldest event that is kept, if there is no `resume_token`.

        Returns:
            An iterator over events, with the `resume_token` to go on later.

        Raises:
            InvalidArgument: while iterating: events after the `resume_token` are no longer kept (30 days, unless the operator
                set another time), or it is of another installation. Read the state anew, then watch without it.
            TooManyWatches: while iterating, before the first answer: you have 100 watches, the limit in one process.
        """
        request = pb.WatchEventsRequest(
            resume_token=resume_token, types=types, resource=resource, from_beginning=from_beginning
        )
        return AsyncEventWatch(self._connection, request)
