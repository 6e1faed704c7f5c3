"""Which rows of a list a caller may see, as a condition of the query: what `access.decide` would say of each of them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, any_, false, literal, not_, or_, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.types import Text

from modelyard_kit.access import SYSTEM_ID, Scope


def permitted(
    scope: Scope, ids: Sequence[ColumnElement[str]], owners: Sequence[ColumnElement[str]] = ()
) -> ColumnElement[bool]:
    """Return the condition under which a row is in a scope.

    Args:
        scope: what the caller may see.
        ids: text columns with the ids of the row and of what contains it.
        owners: text columns with the ids of who owns these.
    """
    if scope.everything:
        return true()
    if SYSTEM_ID in scope.denied:
        return false()
    denied = or_(false(), *(_among(column, scope.denied) for column in ids))
    allowed = or_(
        literal(SYSTEM_ID in scope.allowed),
        *(_among(column, scope.allowed) for column in ids),
        *(_among(column, frozenset(scope.owners)) for column in owners),
    )
    return and_(not_(denied), allowed)


def _among(column: ColumnElement[str], ids: frozenset[str]) -> ColumnElement[bool]:
    """Return whether the column has one of the ids, sent as one parameter, however many there are."""
    return column == any_(literal(sorted(ids), ARRAY(Text)))
