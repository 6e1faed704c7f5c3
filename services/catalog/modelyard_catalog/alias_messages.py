"""Requests about the past of aliases to commands, every shape check included."""

from __future__ import annotations

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard_catalog import names
from modelyard_catalog.commands import AliasAt, AliasHistory, Rollback
from modelyard_kit import paging
from modelyard_kit.errors import InvalidField
from modelyard_kit.filters import Asked
from modelyard_kit.protos import moment


def parse_alias_history(request: service.ListAliasHistoryRequest) -> AliasHistory:
    """Check the shape of a request for moves."""
    return AliasHistory(
        model=names.path("model", request.model, 3),
        alias=names.settable_alias("alias", request.alias) if request.alias else "",
        asked=Asked(
            size=paging.page_size(request.page_size),
            filter=request.filter,
            page_token=request.page_token,
        ),
    )


def parse_alias_at(request: service.GetAliasAtRequest) -> AliasAt:
    """Check the shape of a question about the past."""
    model = names.path("model", request.model, 3)
    alias = names.settable_alias("alias", request.alias)
    if not request.HasField("time"):
        raise InvalidField("time", "is required")
    try:
        time = moment(request.time)
    except (ValueError, OverflowError) as error:
        raise InvalidField("time", "is not a moment between the years 1 and 9999") from error
    return AliasAt(model, alias, time)


def parse_rollback(request: service.RollbackAliasRequest) -> Rollback:
    """Check the shape of a request to roll an alias back."""
    expected = request.expected_version if request.HasField("expected_version") else None
    if expected is not None and expected < 0:
        raise InvalidField(
            "expected_version", f"{expected} is not a version number: write 1, 2, 3 …, or 0 for none"
        )
    return Rollback(
        model=names.path("model", request.model, 3),
        alias=names.settable_alias("alias", request.alias),
        expected=expected,
    )
