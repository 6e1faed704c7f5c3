"""Trust roots: keys and certificates whose model signatures count."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import _namespace
from modelyard._connection import new_request_id
from modelyard._convert import from_proto, rows
from modelyard._namespace import Namespace, resource_type_number
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1 import trust_pb2
from modelyard.types import ResourceType, TrustRoot

if TYPE_CHECKING:
    from modelyard.api.common.v1 import resource_pb2


class AsyncTrustRoots(Namespace):
    """`client.trust_roots`: whose signatures count inside a catalog, schema or model, or everywhere."""

    async def create(
        self, name: str, pem: str | Path, resource: str = "", *, request_id: str = ""
    ) -> TrustRoot:
        """Name a public key or a certificate whose signatures count.

        Args:
            name: What to call it.
            pem: The PEM text, or the path of a file with it.
            resource: Catalog, schema or model; by default the whole installation.
            request_id: Makes a repetition safe.
        """
        text = await asyncio.to_thread(pem.read_text) if isinstance(pem, Path) else pem
        request = pb.CreateTrustRootRequest(
            resource_type=_kind(resource),
            resource=resource,
            trust_root=trust_pb2.TrustRoot(name=name, pem=text),
            request_id=request_id or new_request_id(),
        )
        answer = await self._connection.call(self._connection.governance.CreateTrustRoot, request)
        return from_proto(TrustRoot, answer.trust_root)

    async def delete(self, name: str, resource: str = "") -> bool:
        """Take a trust root away, so that its signatures count no more; tells whether there was one."""
        request = pb.DeleteTrustRootRequest(resource_type=_kind(resource), resource=resource, name=name)
        return (await self._connection.call(self._connection.governance.DeleteTrustRoot, request)).deleted

    async def list(self, resource: str = "") -> tuple[TrustRoot, ...]:
        """The trust roots that count for a resource: its own first, then those of what contains it."""
        request = pb.FindTrustRootsRequest(resource_type=_kind(resource), resource=resource)
        answer = await self._connection.call(self._connection.governance.FindTrustRoots, request)
        return tuple(rows(TrustRoot, answer.trust_roots))


def _kind(resource: str) -> resource_pb2.ResourceType.ValueType:
    model = ResourceType.MODEL if resource.count(".") == 2 else None
    return resource_type_number(_namespace.resource_type(resource, model))
