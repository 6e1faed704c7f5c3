"""The client for `async` programs: `from modelyard.aio import AsyncClient`."""

from __future__ import annotations

from modelyard._client import AsyncClient
from modelyard._events import AsyncEventWatch
from modelyard._pager import AsyncPager

__all__ = ["AsyncClient", "AsyncEventWatch", "AsyncPager"]
