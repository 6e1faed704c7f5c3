"""Aliases, tags and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import json_format, timestamp_pb2

from modelyard._convert import from_proto, json_values, rows
from modelyard._namespace import (
    Namespace,
    resource_name,
    resource_type,
    resource_type_number,
    version_reference,
)
from modelyard._pager import AsyncPager
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.errors import InvalidArgument
from modelyard.types import AliasMove, Model, ResourceType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


class AsyncAliases(Namespace):
    """`client.aliases`: names that point at versions of a model."""

    async def set(
        self, model: str, aliases: Mapping[str, int], *, expected: Mapping[str, int] | None = None
    ) -> Model:
        """Point aliases at version numbers, all or none.

        Args:
            model: Full name of the model.
            aliases: Alias to version number; 0 removes the alias.
            expected: Where an alias must point now for the change to be made; 0 means it must not exist.

        Raises:
            AliasMoved: an alias does not point where `expected` says; nothing was changed.
            PolicyUnmet: a policy protects an alias from that version.
        """
        wanted = expected or {}
        changes = [
            pb.AliasChange(alias=alias, version=number, expected_version=wanted.get(alias))
            for alias, number in aliases.items()
        ]
        request = pb.SetAliasesRequest(model=resource_name(model, 3, "model"), changes=changes)
        return from_proto(
            Model, (await self._connection.call(self._connection.catalog.SetAliases, request)).model
        )

    async def remove(self, model: str, *aliases: str) -> Model:
        """Remove aliases."""
        return await self.set(model, dict.fromkeys(aliases, 0))

    def history(
        self,
        model: str,
        alias: str = "",
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        page_size: int = 0,
    ) -> AsyncPager[AliasMove]:
        """Walk through every move of an alias, or of all aliases of a model, newest first.

        Args:
            model: Full name of the model.
            alias: The alias; empty for all.
            filter: Which moves, `"moved_by = 'ada'"`; see docs/filters.md.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[AliasMove], str]:
            request = pb.ListAliasHistoryRequest(
                model=resource_name(model, 3, "model"),
                alias=alias,
                page_size=page_size,
                page_token=token,
                filter=filter,
            )
            answer = await self._connection.call(self._connection.catalog.ListAliasHistory, request)
            return rows(AliasMove, answer.moves), answer.next_page_token

        return AsyncPager(fetch)

    async def at(self, model: str, alias: str, time: datetime) -> int:
        """The version number that an alias pointed at then; 0 if it did not exist.

        Raises:
            InvalidArgument: `time` has no time zone.
        """
        if time.tzinfo is None:
            raise InvalidArgument(f"time: {time.isoformat()} has no time zone; write datetime(…, tzinfo=UTC)")
        request = pb.GetAliasAtRequest(model=resource_name(model, 3, "model"), alias=alias, time=_stamp(time))
        return int((await self._connection.call(self._connection.catalog.GetAliasAt, request)).version)

    async def rollback(self, model: str, alias: str, *, expected: int | None = None) -> Model:
        """Point an alias where it pointed before its last move.

        Args:
            model: Full name of the model.
            alias: The alias.
            expected: Version number it must point at now for the change to be made.

        Raises:
            AliasMoved: it does not point there; nothing was changed.
            InvalidState: there is nothing to go back to.
            PolicyUnmet: a policy protects the alias from that version.
        """
        request = pb.RollbackAliasRequest(
            model=resource_name(model, 3, "model"), alias=alias, expected_version=expected
        )
        answer = await self._connection.call(self._connection.catalog.RollbackAlias, request)
        return from_proto(Model, answer.model)


class AsyncTags(Namespace):
    """`client.tags`: short texts on catalogs, schemas, models and versions."""

    async def set(
        self,
        name: str,
        tags: Mapping[str, str],
        *,
        remove: Sequence[str] = (),
        resource_type: ResourceType | str | None = None,
    ) -> dict[str, str]:
        """Write and remove tags; returns all tags after the change.

        Args:
            name: Name of a catalog, schema or model, or a version reference.
            tags: Tags to write.
            remove: Keys to remove.
            resource_type: Kind of thing; by default told from the form of the name.
        """
        kind = _taggable(name, resource_type)
        request = pb.SetTagsRequest(
            resource_type=resource_type_number(kind), name=name, set=tags, remove=remove
        )
        return dict((await self._connection.call(self._connection.catalog.SetTags, request)).tags)


class AsyncMetrics(Namespace):
    """`client.metrics`: measurements of a version."""

    async def set(
        self, reference: str, metrics: Mapping[str, Any], *, remove: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Write and remove metrics, any JSON values; returns all metrics after the change."""
        values = json_values(metrics, "metrics")
        request = pb.SetMetricsRequest(name=version_reference(reference), set=values, remove=remove)
        answer = await self._connection.call(self._connection.catalog.SetMetrics, request)
        return {name: json_format.MessageToDict(value) for name, value in answer.metrics.items()}


def _taggable(name: str, given: ResourceType | str | None) -> ResourceType:
    """As `resource_type`; three parts can only be a model here, since deployments have no tags."""
    if not given and name.count(".") == 2 and not set("/@") & set(name):
        return ResourceType.MODEL
    return resource_type(name, given)


def _stamp(time: datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(time)
    return stamp
