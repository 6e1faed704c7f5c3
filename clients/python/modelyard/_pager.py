"""Lists that read their pages as they are walked through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from modelyard.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

T = TypeVar("T")


class AsyncPager(Generic[T]):
    """All rows of a list: `async for row in pager`, `await pager.collect()`, or page by page.

    Each walk begins anew and asks the service for the next page when the rows of the last one are used up.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[tuple[Sequence[T], str]]]) -> None:
        """`fetch` takes a page token (empty for the first page) and gives the rows and the next token."""
        self._fetch = fetch

    async def pages(self) -> AsyncIterator[Sequence[T]]:
        """The pages one after the other."""
        token = ""
        while True:
            rows, following = await self._fetch(token)
            yield rows
            if not following:
                return
            if following == token:
                raise InternalError("the service gave the same page token twice; the list would never end")
            token = following

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for row in page:
                yield row

    async def collect(self, limit: int | None = None) -> list[T]:
        """The rows as a list, at most `limit` of them."""
        found: list[T] = []
        async for page in self.pages():
            found.extend(page)
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found
