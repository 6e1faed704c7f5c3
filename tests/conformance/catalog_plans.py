"""How PostgreSQL carries out the queries of the catalog."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_kit.prepared import Prepared
from tests.conformance.catalog_stack import CatalogStack


async def explained(
    stack: CatalogStack, statement: str, parameters: Any, *, carried_out: bool = False
) -> dict[str, Any]:
    """Return the plan of a statement that was recorded; `carried_out` also runs it and tells how many rows it dealt with."""
    options = "ANALYZE, FORMAT JSON" if carried_out else "FORMAT JSON"

    async def explain(connection: AsyncConnection) -> Any:
        result = await connection.exec_driver_sql(f"EXPLAIN ({options}) {statement}", parameters)
        return result.scalar_one()

    plan = await (stack.db.read(explain) if carried_out else stack.db.in_tx(explain))
    plan = json.loads(plan) if isinstance(plan, str) else plan
    whole: dict[str, Any] = plan[0]["Plan"]
    return whole


def scanned(plan: dict[str, Any]) -> list[str]:
    """Return the tables that a plan reads from end to end."""
    return [node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"]


def rows_read(node: dict[str, Any]) -> float:
    """Return how many rows a step of a plan that was carried out dealt with, whether it passed them on or not."""
    removed = (node.get(f"Rows Removed by {by}", 0) for by in ("Filter", "Join Filter"))
    return float((node["Actual Rows"] + sum(removed)) * node["Actual Loops"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@contextmanager
def recorded(stack: CatalogStack, *verbs: str) -> Iterator[list[tuple[str, Any]]]:
    """Collect the queries, or the statements with other verbs, with their parameters, that run meanwhile."""
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.partition(" ")[0] in (verbs or ("SELECT",)):
            statements.append((statement, parameters))

    async def fetch(self: Prepared, driver: Any, values: Sequence[Any]) -> Any:
        note(None, None, self.text, tuple(values))
        return await directly(self, driver, values)

    directly = Prepared.fetch
    engine = stack.db.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    with mock.patch.object(Prepared, "fetch", fetch):
        yield statements
    event.remove(engine, "before_cursor_execute", note)
