"""The audit chain: read, followed, proved, exported."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard._convert import from_proto, rows
from modelyard._namespace import Namespace, version_reference
from modelyard._pager import AsyncPager
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.types import Activity, AuditCheckpoint, AuditEntry, AuditVerification

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

_FOLLOW_SECONDS = 1.0
_LONG_SECONDS = 3600.0


class AsyncAudit(Namespace):
    """`client.audit`: everything that was changed, and everything that was refused, in a chain of hashes."""

    def list(
        self,
        *,
        resource_id: str = "",
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[AuditEntry]:
        """Walk through the entries, of one resource or all.

        Args:
            resource_id: Id of the resource; empty for all.
            filter: Which ones, `"actor = 'ada' AND time > '2026-01-31T12:00:00Z'"`; see docs/filters.md.
            order_by: `"sequence desc"` for the newest first; a chain has no other order.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[AuditEntry], str]:
            request = pb.ListAuditEntriesRequest(
                page_size=page_size,
                page_token=token,
                resource_id=resource_id,
                filter=filter,
                order_by=order_by,
            )
            answer = await self._connection.call(self._connection.governance.ListAuditEntries, request)
            return rows(AuditEntry, answer.entries), answer.next_page_token

        return AsyncPager(fetch)

    async def follow(
        self,
        *,
        resource_id: str = "",
        filter: str = "",  # noqa: A002  (the name in the contract)
        after: int | None = None,
    ) -> AsyncIterator[AuditEntry]:
        """Entries as they come, without an end.

        Args:
            resource_id: Id of the resource; empty for all.
            filter: Which ones, as of `list`.
            after: Begin after this sequence; by default with what comes from now on.
        """
        if after is None:
            newest = await self.list(order_by="sequence desc", page_size=1).collect(1)
            after = newest[0].sequence if newest else 0
        while True:
            wanted = f"({filter}) AND sequence > {after}" if filter.strip() else f"sequence > {after}"
            async for entry in self.list(resource_id=resource_id, filter=wanted):
                after = entry.sequence
                yield entry
            await asyncio.sleep(_FOLLOW_SECONDS)

    def activity(
        self,
        reference: str,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Activity]:
        """Walk through what happened to a version: changes, reviews, aliases that came and went, deployments.

        Args:
            reference: `prod.ml_team.iris/3`, `prod.ml_team.iris@champion`.
            filter: Which ones, as of `list`.
            order_by: `"sequence desc"` for the newest first.
            page_size: Rows asked for at once.
        """
        version = version_reference(reference)

        async def fetch(token: str) -> tuple[Sequence[Activity], str]:
            request = pb.ListActivityRequest(
                model_version=version, page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListActivity, request)
            return rows(Activity, answer.activities), answer.next_page_token

        return AsyncPager(fetch)

    async def verify(self, *, timeout: float = 300.0) -> AuditVerification:
        """Let the service recompute the whole chain, within `timeout` seconds.

        To believe nobody, `export` it and use `modelyard.auditing.verify_export` with a key that you know.
        """
        method = self._connection.governance.VerifyAudit
        answer = await self._connection.call(method, pb.VerifyAuditRequest(), timeout=timeout)
        result = from_proto(AuditVerification, answer)
        return result if answer.HasField("checkpoint") else replace(result, checkpoint=None)

    async def checkpoint(self) -> AuditCheckpoint:
        """Have it signed where the chain is now. Keep it elsewhere: an export must then agree with it."""
        answer = await self._connection.call(
            self._connection.governance.CheckpointAudit, pb.CheckpointAuditRequest()
        )
        return from_proto(AuditCheckpoint, answer.checkpoint)

    async def keys(self) -> tuple[str, ...]:
        """The public keys of checkpoints and exports in PEM, the one in use first."""
        answer = await self._connection.call(
            self._connection.governance.GetAuditKeys, pb.GetAuditKeysRequest()
        )
        return tuple(answer.keys)

    async def export(self, path: str | Path, *, after: int = 0, timeout: float = _LONG_SECONDS) -> int:
        """Write the chain into a file as JSON Lines that prove themselves, and return how many lines.

        The file is there only when it is whole.

        Args:
            path: Where to; a file that is there is replaced.
            after: Begin after this sequence; by default with the oldest entry that is kept.
            timeout: Seconds it may take.
        """
        target = Path(path)
        draft = target.with_name(f".{target.name}.part")
        count = 0
        answers = self._connection.receive(
            self._connection.governance.ExportAudit,
            pb.ExportAuditRequest(after_sequence=after),
            timeout=timeout,
        )
        try:
            with draft.open("w", encoding="utf-8", newline="\n") as file:
                async for answer in answers:
                    count += len(answer.lines)
                    await asyncio.to_thread(file.writelines, [f"{line}\n" for line in answer.lines])
            draft.replace(target)
        finally:
            await answers.aclose()
            draft.unlink(missing_ok=True)
        return count
