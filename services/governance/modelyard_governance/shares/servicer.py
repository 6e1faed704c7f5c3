"""The RPCs of shares and bundles: parse, call the rules, render."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1 import share_pb2
from modelyard_governance import messages
from modelyard_governance.shares import messages as share_messages
from modelyard_governance.shares.bundles import Bundles
from modelyard_governance.shares.models import Share
from modelyard_governance.shares.rules import Shares
from modelyard_kit.auth import current_call
from modelyard_kit.filters import Asked
from modelyard_kit.grants import Grants


class ShareServicer:
    """The part of GovernanceService that is about what leaves the installation."""

    def __init__(self, *, shares: Shares, bundles: Bundles, known: Grants) -> None:
        self._shares = shares
        self._bundles = bundles
        self._known = known

    async def CreateShare(self, request: pb.CreateShareRequest, context: Any) -> pb.CreateShareResponse:
        share = await self._shares.create(current_call(), share_messages.parse_create(request))
        return pb.CreateShareResponse(share=self._share_out(share))

    async def GetShare(self, request: pb.GetShareRequest, context: Any) -> pb.GetShareResponse:
        share = await self._shares.get(current_call(), share_messages.parse_name(request))
        return pb.GetShareResponse(share=self._share_out(share))

    async def ListShares(self, request: pb.ListSharesRequest, context: Any) -> pb.ListSharesResponse:
        rows, token = await self._shares.page(Asked.of(request))
        return pb.ListSharesResponse(shares=map(self._share_out, rows), next_page_token=token)

    async def UpdateShare(self, request: pb.UpdateShareRequest, context: Any) -> pb.UpdateShareResponse:
        share = await self._shares.update(current_call(), *share_messages.parse_update(request))
        return pb.UpdateShareResponse(share=self._share_out(share))

    async def DeleteShare(self, request: pb.DeleteShareRequest, context: Any) -> pb.DeleteShareResponse:
        deleted = await self._shares.delete(current_call(), share_messages.parse_name(request))
        return pb.DeleteShareResponse(deleted=deleted)

    async def DescribeVersionForExport(
        self, request: pb.DescribeVersionForExportRequest, context: Any
    ) -> AsyncIterator[pb.DescribeVersionForExportResponse]:
        async for part in self._bundles.describe(messages.parse_reference(request)):
            yield pb.DescribeVersionForExportResponse(lines=part.lines, seal=part.seal)

    async def SignBundle(self, request: pb.SignBundleRequest, context: Any) -> pb.SignBundleResponse:
        statement, signature = await self._bundles.sign(current_call(), share_messages.parse_sign(request))
        return pb.SignBundleResponse(statement=statement, signature=signature)

    def _share_out(self, share: Share) -> share_pb2.Share:
        return share_messages.share_out(share, self._known)
