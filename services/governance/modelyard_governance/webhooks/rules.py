"""The use cases of webhooks: made, paused, resumed, deleted, their log read and replayed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_governance.webhooks import store
from modelyard_governance.webhooks.models import (
    CreateWebhook,
    Delivery,
    EarlierSecret,
    Replay,
    State,
    UpdateWebhook,
    Webhook,
)
from modelyard_governance.webhooks.secrets import Sealer, new_secret
from modelyard_governance.webhooks.targets import check_url
from modelyard_kit import idempotency, limits
from modelyard_kit.access import SYSTEM
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import AlreadyExists, NotFound
from modelyard_kit.filters import Asked
from modelyard_kit.ids import new_id
from modelyard_kit.outbox import Event, append

KIND = "webhook"
_METHOD = "CreateWebhook"
# How long a secret that was replaced counts, and how many of them: a receiver that missed a rotation is not cut off by the next.
_OVERLAP = timedelta(hours=24)
_EARLIER_SECRETS = 4


class Webhooks:
    """Keeps webhooks.

    Args:
        database: with webhooks, deliveries and the audit chain.
        sealer: encrypts their secrets.
        clock: tells the time.
        wake: called when there may be something to send.
        allow_private: whether addresses inside may be targets.
    """

    def __init__(
        self,
        *,
        database: Database,
        sealer: Sealer,
        clock: Clock,
        wake: Callable[[], None],
        allow_private: bool,
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._wake = wake
        self._allow_private = allow_private

    async def create(self, call: Call, command: CreateWebhook) -> tuple[Webhook, str]:
        """Make a webhook and return it with its secret; a replay returns an empty secret.

        Raises:
            InvalidField: the address may not be called.
            AlreadyExists: the name is taken.
            LimitExceeded: there are too many.
            RequestIdReused: the request id came before with other content.
        """
        check_url(command.url, allow_private=self._allow_private)
        secret = new_secret()
        once = {"principal_id": call.principal.id, "method": _METHOD, "request_id": command.request_id}
        once["fingerprint"] = command.fingerprint

        async def work(connection: AsyncConnection) -> tuple[Webhook, str]:
            made = await idempotency.replay(connection, **once)
            found = await store.get(connection, made) if made else None
            if found is not None:
                return found, ""
            if await store.named(connection, command.name) is not None:
                raise AlreadyExists(KIND, command.name)
            limits.check("webhooks", await store.count(connection) + 1)
            webhook = Webhook(
                id=new_id(),
                name=command.name,
                url=command.url,
                types=command.types,
                resource=command.resource,
                state=State.ENABLED,
                pause_reason="",
                failures=0,
                quiet_until=None,
                creator=call.principal.name,
                create_time=self._clock(),
            )
            await store.add(connection, webhook, self._sealer.seal(secret))
            await idempotency.remember(connection, **once, resource_id=webhook.id)
            await append(connection, _event("created", webhook, call, after=_content(webhook)))
            return webhook, secret

        return await self._database.in_tx(work)

    async def get(self, name: str) -> Webhook:
        """Return a webhook.

        Raises:
            NotFound: there is none of that name.
        """
        return await self._database.read(lambda connection: _named(connection, name))

    async def page(self, asked: Asked) -> tuple[list[Webhook], str]:
        """Return a page of webhooks and the token of the next.

        Raises:
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        return await self._database.read(lambda connection: store.page(connection, asked))

    async def update(self, call: Call, wanted: UpdateWebhook) -> Webhook:
        """Change a webhook; another address is tried at once.

        Raises:
            InvalidField: the address may not be called.
            NotFound: there is none of that name.
        """
        if wanted.url is not None:
            check_url(wanted.url, allow_private=self._allow_private)
        given = {"url": wanted.url, "types": wanted.types, "resource": wanted.resource}

        async def work(connection: AsyncConnection) -> Webhook:
            before = await _named(connection, wanted.name)
            changes = {name: value for name, value in given.items() if value is not None}
            webhook = replace(before, **changes)  # type: ignore[arg-type]
            if webhook == before:
                return before
            await store.change(connection, webhook, elsewhere=webhook.url != before.url)
            sides = {"before": _content(before), "after": _content(webhook)}
            await append(connection, _event("updated", webhook, call, **sides))
            return await _named(connection, wanted.name)

        webhook = await self._database.in_tx(work)
        self._wake()
        return webhook

    async def rotate_secret(self, call: Call, name: str, *, revoke: bool) -> tuple[Webhook, str]:
        """Make another secret and return it with the webhook; the one before counts for a while, unless it is revoked.

        Raises:
            NotFound: there is none of that name.
        """
        secret = new_secret()

        async def work(connection: AsyncConnection) -> Webhook:
            webhook = await _named(connection, name)
            now = self._clock()
            sealed, earlier = await store.lock_secrets(connection, webhook.id)
            counting = [each for each in earlier if each.until > now]
            kept = [EarlierSecret(sealed, now + _OVERLAP), *counting][:_EARLIER_SECRETS]
            await store.set_secrets(connection, webhook.id, self._sealer.seal(secret), [] if revoke else kept)
            await append(connection, _event("secret_rotated", webhook, call, revoked=revoke))
            return await _named(connection, name)

        return await self._database.in_tx(work), secret

    async def set_state(self, call: Call, name: str, state: State) -> Webhook:
        """Pause or resume a webhook; errors as `get`."""

        async def work(connection: AsyncConnection) -> Webhook:
            before = await _named(connection, name)
            if before.state is state and not before.failures:
                return before
            await store.set_state(connection, before.id, state)
            if before.state is not state:
                verb = "resumed" if state is State.ENABLED else "paused"
                await append(connection, _event(verb, before, call))
            return await _named(connection, name)

        webhook = await self._database.in_tx(work)
        self._wake()
        return webhook

    async def delete(self, call: Call, name: str) -> bool:
        """Take a webhook away; return False when there was none."""

        async def work(connection: AsyncConnection) -> bool:
            webhook = await store.named(connection, name)
            if webhook is None:
                return False
            await store.remove(connection, webhook.id)
            await append(connection, _event("deleted", webhook, call))
            return True

        return await self._database.in_tx(work)

    async def deliveries(self, name: str, asked: Asked) -> tuple[list[Delivery], str]:
        """Return a page of the log of a webhook and the token of the next; errors as `get` and `page`."""

        async def work(connection: AsyncConnection) -> tuple[list[Delivery], str]:
            webhook = await _named(connection, name)
            return await store.page_of_deliveries(connection, webhook.id, asked)

        return await self._database.read(work)

    async def replay(self, call: Call, wanted: Replay) -> int:
        """Send again, and return how much; errors as `get`.

        Raises:
            NotFound: there is no such delivery, or it is not done yet.
        """

        async def work(connection: AsyncConnection) -> int:
            webhook = await _named(connection, wanted.webhook)
            count = await store.replay(connection, webhook.id, wanted, self._clock())
            if wanted.delivery_id and not count:
                raise NotFound("finished webhook delivery", wanted.delivery_id)
            if count:
                await append(connection, _event("replayed", webhook, call, deliveries=count))
            return count

        count = await self._database.in_tx(work)
        self._wake()
        return count


async def _named(connection: AsyncConnection, name: str) -> Webhook:
    webhook = await store.named(connection, name)
    if webhook is None:
        raise NotFound(KIND, name)
    return webhook


def _content(webhook: Webhook) -> dict[str, object]:
    return {"url": webhook.url, "types": list(webhook.types), "resource": webhook.resource}


def _event(verb: str, webhook: Webhook, call: Call, **data: object) -> Event:
    told = {"webhook": webhook.name, "webhook_id": webhook.id, **data}
    return Event(f"governance.webhook.{verb}", SYSTEM, call.principal, call.request_id, told)
