"""How PostgreSQL carries out the queries of the catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from tests.conformance.catalog_stack import CatalogStack


async def explained(stack: CatalogStack, statement: str, parameters: Any) -> dict[str, Any]:
    """Return the plan of a query that was recorded."""

    async def explain(connection: AsyncConnection) -> Any:
        result = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
        return result.scalar_one()

    plan = await stack.db.read(explain)
    plan = json.loads(plan) if isinstance(plan, str) else plan
    whole: dict[str, Any] = plan[0]["Plan"]
    return whole


def scanned(plan: dict[str, Any]) -> list[str]:
    """Return the tables that a plan reads from end to end."""
    return [node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@contextmanager
def recorded(stack: CatalogStack) -> Iterator[list[tuple[str, Any]]]:
    """Collect the queries, with their parameters, that run meanwhile."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    engine = stack.db.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)
