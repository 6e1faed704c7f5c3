"""Refusals that only the catalog gives; the shared ones are in `modelyard_kit.errors`."""

from __future__ import annotations

from modelyard_kit.errors import DomainError


class AliasMoved(DomainError):
    """An alias does not point where a compare-and-set expected it; no alias of the call was moved.

    Args:
        name: full name of the model.
        alias: the alias that differs.
        expected: version number the caller expected; 0 means no such alias.
        actual: version number it points at; 0 means no such alias.
    """

    reason = "ALIAS_MOVED"
    code = "ABORTED"

    def __init__(self, name: str, alias: str, *, expected: int, actual: int) -> None:
        where = f"points at version {actual}" if actual else "does not exist"
        wanted = f"version {expected}" if expected else "no such alias"
        super().__init__(
            f"alias {alias!r} of model {name!r} {where}, expected was {wanted}; read the model again and repeat",
            metadata={"name": name, "alias": alias, "expected": str(expected), "actual": str(actual)},
        )


class LineageCycle(DomainError):
    """An edge would make something its own origin; no edge of the call was recorded.

    Args:
        source: name of what the edge says was used.
        target: name of what it says came of it.
    """

    reason = "LINEAGE_CYCLE"
    code = "FAILED_PRECONDITION"

    def __init__(self, source: str, target: str) -> None:
        super().__init__(
            f"{target!r} cannot come of {source!r}: {source!r} came of {target!r}; no edge was recorded",
            metadata={"source": source, "target": target},
        )
