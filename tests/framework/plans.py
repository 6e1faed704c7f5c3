"""What PostgreSQL means to do for a query."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection


async def read_from_end_to_end(connection: AsyncConnection, work: Callable[[], Awaitable[Any]]) -> set[str]:
    """Return the tables that the queries of some work on this connection read from end to end."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(connection.sync_connection, "before_cursor_execute", note)
    try:
        await work()
    finally:
        event.remove(connection.sync_connection, "before_cursor_execute", note)
    found: set[str] = set()
    for statement, parameters in statements:
        answer = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        plan = answer.scalar_one()
        plan = json.loads(plan) if isinstance(plan, str) else plan
        found |= {
            node["Relation Name"] for node in _nodes(plan[0]["Plan"]) if node["Node Type"] == "Seq Scan"
        }
    return found


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)
