"""Webhooks: addresses that are told of events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from modelyard._connection import new_request_id
from modelyard._convert import from_proto, rows
from modelyard._namespace import Namespace, update_mask
from modelyard._pager import AsyncPager
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1 import webhook_pb2
from modelyard.types import NewWebhook, Webhook, WebhookDelivery

if TYPE_CHECKING:
    from collections.abc import Sequence


class AsyncWebhooks(Namespace):
    """`client.webhooks`: events as signed CloudEvents by HTTP, at least once."""

    async def create(
        self,
        name: str,
        url: str,
        *,
        types: Sequence[str] = (),
        resource: str = "",
        request_id: str = "",
    ) -> NewWebhook:
        """Send events to an address from now on; its secret is in the answer and nowhere else.

        Args:
            name: What to call it.
            url: `https://…`.
            types: Only these types, `catalog.alias.moved`; `catalog.alias.*` means all that begin so.
            resource: Only about the catalog, schema, model, version or deployment of this name, and what is inside it.
            request_id: Makes a repetition safe; a repeated answer has no secret.
        """
        request = pb.CreateWebhookRequest(
            webhook=webhook_pb2.Webhook(name=name, url=url, types=types, resource=resource),
            request_id=request_id or new_request_id(),
        )
        answer = await self._connection.call(self._connection.governance.CreateWebhook, request)
        return NewWebhook(from_proto(Webhook, answer.webhook), answer.secret)

    async def get(self, name: str) -> Webhook:
        """Read a webhook."""
        request = pb.GetWebhookRequest(name=name)
        answer = await self._connection.call(self._connection.governance.GetWebhook, request)
        return from_proto(Webhook, answer.webhook)

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Webhook]:
        """Walk through webhooks.

        Args:
            filter: Which ones, `"state = 'PAUSED'"`; see docs/filters.md.
            order_by: Order, `"create_time desc"`; by default by name.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Webhook], str]:
            request = pb.ListWebhooksRequest(
                page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListWebhooks, request)
            return rows(Webhook, answer.webhooks), answer.next_page_token

        return AsyncPager(fetch)

    async def update(
        self,
        name: str,
        *,
        url: str | None = None,
        types: Sequence[str] | None = None,
        resource: str | None = None,
    ) -> Webhook:
        """Change what is given; the secret stays, and what waits to be sent goes to the new address.

        Args:
            name: The webhook.
            url: `https://…`.
            types: All types wanted, as of `create`; none means all there are.
            resource: As of `create`; empty means everything.
        """
        given = {"url": url, "types": types, "resource": resource}
        request = pb.UpdateWebhookRequest(
            name=name,
            webhook=webhook_pb2.Webhook(url=url or "", types=types or (), resource=resource or ""),
            update_mask=update_mask(given),
        )
        answer = await self._connection.call(self._connection.governance.UpdateWebhook, request)
        return from_proto(Webhook, answer.webhook)

    async def rotate_secret(self, name: str, *, revoke: bool = False) -> NewWebhook:
        """Make another secret; it is in the answer and nowhere else.

        Args:
            name: The webhook.
            revoke: Whether earlier secrets count no more; by default requests are signed with them too for 24 hours.
        """
        request = pb.RotateWebhookSecretRequest(name=name, revoke=revoke)
        answer = await self._connection.call(self._connection.governance.RotateWebhookSecret, request)
        return NewWebhook(from_proto(Webhook, answer.webhook), answer.secret)

    async def pause(self, name: str) -> Webhook:
        """Stop sending; what happens meanwhile is sent after a resume."""
        request = pb.PauseWebhookRequest(name=name)
        answer = await self._connection.call(self._connection.governance.PauseWebhook, request)
        return from_proto(Webhook, answer.webhook)

    async def resume(self, name: str) -> Webhook:
        """Send again, at once; also after failures, without waiting longer."""
        request = pb.ResumeWebhookRequest(name=name)
        answer = await self._connection.call(self._connection.governance.ResumeWebhook, request)
        return from_proto(Webhook, answer.webhook)

    async def delete(self, name: str) -> bool:
        """Take a webhook away with its log; tells whether there was one."""
        request = pb.DeleteWebhookRequest(name=name)
        return (await self._connection.call(self._connection.governance.DeleteWebhook, request)).deleted

    def deliveries(
        self,
        name: str,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[WebhookDelivery]:
        """Walk through the delivery log of a webhook.

        Args:
            name: The webhook.
            filter: Which ones, `"state = 'FAILED'"`; see docs/filters.md.
            order_by: Order, `"sequence desc"`; by default the oldest first.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[WebhookDelivery], str]:
            request = pb.ListWebhookDeliveriesRequest(
                webhook=name, page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListWebhookDeliveries, request)
            return rows(WebhookDelivery, answer.deliveries), answer.next_page_token

        return AsyncPager(fetch)

    async def replay(self, name: str, *, delivery_id: str = "", since: datetime | None = None) -> int:
        """Send again, and tell how much: one delivery, all in the log since a time (aware), or all that failed."""
        request = pb.ReplayWebhookDeliveriesRequest(webhook=name, delivery_id=delivery_id)
        if since is not None:
            request.since_time.FromDatetime(since.astimezone(UTC))
        answer = await self._connection.call(self._connection.governance.ReplayWebhookDeliveries, request)
        return answer.deliveries
