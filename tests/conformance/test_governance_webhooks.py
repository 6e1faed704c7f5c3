"""Webhooks of a running governance, with real receivers on loopback: signed, at least once, and nobody hurts another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard_governance.bootstrap import FIRST
from modelyard_governance.webhooks import dispatcher, rules
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.errors import (
    AlreadyExists,
    InvalidField,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    RequestIdReused,
)
from modelyard_kit.limits import LIMITS, Limit
from modelyard_kit.protos import timestamp
from tests.framework.receiver import Receiver, receiver
from tests.framework.waiting import eventually

from .governance_stack import Caller, Stack, stack


@pytest.fixture
def dsn(fresh_database: Callable[[str], str]) -> str:
    return fresh_database("modelyard_governance")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are tried again soon."""
    monkeypatch.setattr(dispatcher, "FIRST_PAUSE", timedelta(milliseconds=50))
    monkeypatch.setattr(dispatcher, "LONGEST_PAUSE", timedelta(milliseconds=200))


@pytest.fixture
async def running_stack(dsn: str, tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(dsn, tmp_path, webhook_private_targets=True, webhook_timeout_seconds=2) as started:
        await bootstrapped(await started.admin())
        yield started


async def bootstrapped(admin: Caller) -> None:
    """Wait until all that the installation did is in the audit chain, so that no webhook is told of it."""

    async def arrived() -> bool:
        made = await admin("ListAuditEntries", filter="type = 'governance.token.created'")
        return len(made.entries) == len(FIRST)

    await eventually(arrived)


async def hook(admin: Caller, to: Receiver | str, name: str = "ops", **given: Any) -> Any:
    url = to if isinstance(to, str) else to.url
    given.setdefault("types", ["governance.principal.*"])
    return await admin("CreateWebhook", webhook={"name": name, "url": url, **given})


async def happen(admin: Caller, *names: str) -> None:
    for name in names:
        await admin("CreatePrincipal", principal={"name": name, "kind": "KIND_USER"})


async def log(admin: Caller, name: str = "ops", **asked: Any) -> list[Any]:
    return list((await admin("ListWebhookDeliveries", webhook=name, **asked)).deliveries)


async def settled(admin: Caller, count: int, name: str = "ops") -> list[Any]:
    """Return the log once so many deliveries are done or given up, and none is left."""
    found: list[Any] = []

    async def over() -> bool:
        found[:] = await log(admin, name)
        return len(found) == count and all(delivery.state != 1 for delivery in found)

    await eventually(over)
    return found


async def test_an_event_arrives_signed_as_a_cloud_event(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    async with receiver() as ops:
        secret = (await hook(admin, ops)).secret
        await happen(admin, "ada")
        await eventually(lambda: ops.bodies)
        assert ops.signed_with(secret)
        (event,) = ops.events
        headers = ops.requests[0].headers
        assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
        assert (headers["webhook-id"], event["specversion"]) == (event["id"], "1.0")
        assert (event["type"], event["subject"]) == ("modelyard.governance.principal.created", "ada")
        assert event["data"]["actorName"] == "admin"
        (delivery,) = await settled(admin, 1)
        assert (delivery.event_id, delivery.attempts, delivery.status_code) == (event["id"], 1, 204)
        assert str(delivery.sequence) == event["sequence"]


async def test_only_what_was_asked_for_and_since_then(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    await happen(admin, "before")
    await eventually(lambda: _entries(admin, "before"))
    async with receiver() as typed, receiver() as about:
        await hook(admin, typed, "typed")
        await hook(admin, about, "about", types=[], resource="eve")
        await happen(admin, "ada", "eve")
        await admin("CreateToken", principal="eve")
        await eventually(lambda: len(typed.bodies) == 2 and about.bodies)
        assert [event["subject"] for event in typed.events] == ["ada", "eve"]
        assert {event["subject"] for event in about.events} == {"eve"}


async def _entries(admin: Caller, resource: str) -> list[Any]:
    return list((await admin("ListAuditEntries", filter=f"resource = '{resource}'")).entries)


async def test_a_failure_is_tried_again_with_the_same_id_and_bytes(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    answers = iter([500, 503, 429, 204])
    async with receiver(answer=lambda _event: next(answers)) as ops:
        await hook(admin, ops)
        await happen(admin, "ada")
        (delivery,) = await settled(admin, 1)
        assert (delivery.attempts, delivery.state) == (4, 2)
        assert len(set(ops.bodies)) == 1
        assert len({request.headers["webhook-id"] for request in ops.requests}) == 1
        assert (await admin("GetWebhook", name="ops")).webhook.failures == 0


async def test_an_event_that_is_refused_holds_up_no_other_and_is_given_up(
    running_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "ATTEMPTS", 3)
    admin = await running_stack.admin()
    async with receiver(answer=lambda event: 400 if event["subject"] == "poison" else 200) as ops:
        await hook(admin, ops)
        await happen(admin, "poison", "ada", "eve")
        deliveries = await settled(admin, 3)
        assert [(item.state, item.attempts, item.status_code) for item in deliveries] == [
            (3, 3, 400),
            (2, 1, 200),
            (2, 1, 200),
        ]
        assert deliveries[0].error == "the receiver answered 400"
        assert len(await log(admin, filter="state = 'FAILED'")) == 1
        ops.answer = lambda _event: 200
        assert (await admin("ReplayWebhookDeliveries", webhook="ops")).deliveries == 1
        assert [item.state for item in await settled(admin, 3)] == [2, 2, 2]


async def test_replayed_one_and_since(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    async with receiver() as ops:
        await hook(admin, ops)
        await happen(admin, "ada")
        (first,) = await settled(admin, 1)
        await happen(admin, "eve")
        await settled(admin, 2)
        assert (await admin("ReplayWebhookDeliveries", webhook="ops")).deliveries == 0
        again = await admin("ReplayWebhookDeliveries", webhook="ops", delivery_id=first.id)
        assert again.deliveries == 1
        await eventually(lambda: ops.ids().count(first.event_id) == 2)
        await settled(admin, 2)
        since = pb.ReplayWebhookDeliveriesRequest(
            webhook="ops", since_time=timestamp(utc_now() - timedelta(hours=1))
        )
        assert (await admin("ReplayWebhookDeliveries", since)).deliveries == 2
        await eventually(lambda: len(ops.bodies) == 5)
        with pytest.raises(NotFound):
            await admin("ReplayWebhookDeliveries", webhook="ops", delivery_id="none")


async def test_a_pause_loses_nothing(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    async with receiver() as ops, receiver() as other:
        await hook(admin, ops)
        await hook(admin, other, "other")
        assert (await admin("PauseWebhook", name="ops")).webhook.state == 2
        await happen(admin, "ada", "eve")
        await eventually(lambda: len(other.bodies) == 2)
        assert ops.bodies == []
        await admin("ResumeWebhook", name="ops")
        await eventually(lambda: [event["subject"] for event in ops.events] == ["ada", "eve"])


async def test_slow_and_dead_receivers_hurt_nobody(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    names = [f"u{number}" for number in range(12)]
    async with receiver(hanging=True) as slow, receiver() as good, receiver() as gone:
        dead = gone.url
        await hook(admin, slow, "slow")
        await hook(admin, good, "good")
    async with receiver(hanging=True, port=slow.port) as slow, receiver(port=good.port) as good:
        await hook(admin, dead, "dead")
        await happen(admin, *names)
        await eventually(lambda: [event["subject"] for event in good.events] == names)
        await eventually(lambda: slow.requests)
        assert slow.most_at_once <= dispatcher.AT_ONCE
        await eventually(lambda: _failures(admin, "dead"))
        await eventually(lambda: _failures(admin, "slow"))
        errors = {delivery.error for delivery in await log(admin, "slow") if delivery.error}
        assert errors == {"no answer within 2 s"}
        # One that fails is tried with one event at a time.
        assert (await admin("GetWebhook", name="dead")).webhook.quiet_until_time.seconds > 0


async def _failures(admin: Caller, name: str) -> int:
    return int((await admin("GetWebhook", name=name)).webhook.failures)


async def test_a_receiver_that_comes_back_gets_everything(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    async with receiver() as before:
        pass
    await hook(admin, before.url)
    await happen(admin, "ada", "eve")
    await eventually(lambda: _failures(admin, "ops"))
    async with receiver(port=before.port) as ops:
        await eventually(lambda: {event["subject"] for event in ops.events} == {"ada", "eve"})
        await settled(admin, 2)


async def test_a_receiver_that_wants_no_more_is_paused(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    async with receiver(answer=lambda _event: 410) as ops:
        await hook(admin, ops)
        await happen(admin, "ada")

        async def paused() -> bool:
            return (await admin("GetWebhook", name="ops")).webhook.state == 2

        await eventually(paused)
        webhook = (await admin("GetWebhook", name="ops")).webhook
        assert "410" in webhook.pause_reason
        ops.answer = lambda _event: 200
        resumed = (await admin("ResumeWebhook", name="ops")).webhook
        assert (resumed.state, resumed.pause_reason) == (1, "")
        await settled(admin, 1)


async def test_redirects_are_not_followed(running_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "ATTEMPTS", 1)
    admin = await running_stack.admin()
    async with receiver(answer=lambda _event: 307) as ops:
        await hook(admin, ops)
        await happen(admin, "ada")
        (delivery,) = await settled(admin, 1)
        assert (delivery.state, delivery.status_code, len(ops.bodies)) == (3, 307, 1)
        assert "redirects are not followed" in delivery.error


async def test_addresses_inside_are_refused_and_never_called(dsn: str, tmp_path: Path) -> None:
    async with receiver() as ops:
        async with stack(dsn, tmp_path) as closed:
            admin = await closed.admin()
            await bootstrapped(admin)
            for url in (ops.url, ops.url.replace("http:", "https:"), "https://localhost/"):
                with pytest.raises(InvalidField):
                    await hook(admin, url)
            # A name that resolves to an address inside is found out when the connection is made.
            await hook(admin, f"https://localtest.invalid.:{ops.port}/hook", "named")
        async with stack(dsn, tmp_path, webhook_private_targets=True) as opened:
            await hook(await opened.admin(), ops)
        async with stack(dsn, tmp_path) as closed:
            admin = await closed.admin()
            await happen(admin, "ada")
            await eventually(lambda: _failures(admin, "ops"))
            errors = {delivery.error for delivery in await log(admin)}
            assert any("must be an address that begins with https" in error for error in errors)
        assert ops.bodies == []


async def test_a_name_that_means_an_address_inside_is_not_called(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an attacker would do who owns a name: what counts is the address of the connection."""
    async with receiver() as ops, stack(dsn, tmp_path) as closed:
        real = asyncio.get_running_loop().getaddrinfo

        async def resolve(host: Any, port: Any, **options: Any) -> Any:
            return await real("127.0.0.1" if host == "hooks.example.com" else host, port, **options)

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        admin = await closed.admin()
        await bootstrapped(admin)
        await hook(admin, f"https://hooks.example.com:{ops.port}/hook")
        await happen(admin, "ada")
        await eventually(lambda: _failures(admin, "ops"))
        (delivery,) = await log(admin)
        assert "127.0.0.1 is inside" in delivery.error
        assert ops.bodies == []


async def test_secrets_are_shown_once_and_sealed_in_the_database(running_stack: Stack, dsn: str) -> None:
    admin = await running_stack.admin()
    wanted = {"name": "ops", "url": "https://example.com/"}
    made = await admin("CreateWebhook", webhook=wanted, request_id="r1")
    assert made.secret.startswith("whsec_")
    again = await admin("CreateWebhook", webhook=wanted, request_id="r1")
    assert (again.webhook, again.secret) == (made.webhook, "")
    with pytest.raises(RequestIdReused):
        await admin("CreateWebhook", webhook=wanted | {"resource": "prod"}, request_id="r1")
    with pytest.raises(AlreadyExists):
        await admin("CreateWebhook", webhook=wanted)
    database = Database.connect(dsn)
    try:
        rows = await database.read(
            lambda connection: connection.execute(text("SELECT sealed_secret FROM webhooks"))
        )
        assert made.secret.removeprefix("whsec_").encode() not in rows.scalar_one()
    finally:
        await database.close()
    audited: list[Any] = []

    async def told() -> bool:
        audited[:] = (await admin("ListAuditEntries", filter="type = 'governance.webhook.created'")).entries
        return bool(audited)

    await eventually(told)
    assert json.loads(audited[0].canonical_event)["data"]["webhook"] == "ops"
    assert made.secret[6:] not in audited[0].canonical_event


async def test_after_a_rotation_both_secrets_count_until_one_is_revoked(
    running_stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await running_stack.admin()
    async with receiver() as ops:
        first = (await hook(admin, ops, types=["governance.principal.created"])).secret

        async def signed(name: str) -> list[bool]:
            """Return which of the secrets an event is signed with that happens now."""
            heard = len(ops.bodies)
            await happen(admin, name)
            await eventually(lambda: len(ops.bodies) > heard)
            return [ops.signed_with(secret) for secret in secrets]

        secrets = [first, (await admin("RotateWebhookSecret", name="ops")).secret]
        rotated = await admin("RotateWebhookSecret", name="ops")  # as if the answer before had been lost
        secrets.append(rotated.secret)
        assert rotated.webhook.HasField("earlier_secrets_expire_time")
        assert await signed("ada") == [True, True, True]
        monkeypatch.setattr(rules, "_OVERLAP", timedelta(0))
        secrets.append((await admin("RotateWebhookSecret", name="ops")).secret)
        assert await signed("bob") == [True, True, False, True]
        revoked = await admin("RotateWebhookSecret", name="ops", revoke=True)
        secrets.append(revoked.secret)
        assert not revoked.webhook.HasField("earlier_secrets_expire_time")
        assert await signed("cyd") == [False, False, False, False, True]
    with pytest.raises(NotFound):
        await admin("RotateWebhookSecret", name="none")


async def test_what_waits_goes_to_a_changed_address(running_stack: Stack) -> None:
    admin = await running_stack.admin()
    async with receiver(answer=lambda _event: 500) as old, receiver() as new:
        secret = (await hook(admin, old)).secret
        await happen(admin, "ada")
        await eventually(lambda: old.bodies)
        wanted = {
            "url": new.url,
            "types": ["governance.principal.created"],
            "resource": "not asked to be changed",
        }
        mask = {"paths": ["url", "types"]}
        changed = (await admin("UpdateWebhook", name="ops", webhook=wanted, update_mask=mask)).webhook
        assert (changed.url, list(changed.types)) == (new.url, ["governance.principal.created"])
        assert (changed.resource, changed.failures) == ("", 0)
        await eventually(lambda: new.bodies)
        assert new.signed_with(secret)
        assert (
            await admin("UpdateWebhook", name="ops", webhook=wanted, update_mask=mask)
        ).webhook.url == new.url

    async def told() -> bool:
        entries = (await admin("ListAuditEntries", page_size=1000)).entries
        data = [entry.event.data for entry in entries if entry.event.type == "governance.webhook.updated"]
        return [(each["before"]["url"], each["after"]["url"]) for each in data] == [(old.url, new.url)]

    await eventually(told)
    for paths, webhook in (
        ([], {}),
        (["name"], {}),
        (["url"], {"url": "ftp://example.com"}),
        (["types"], {"types": ["*"]}),
        (["resource"], {"resource": "a\0"}),
    ):
        with pytest.raises(InvalidField):
            await admin("UpdateWebhook", name="ops", webhook=webhook, update_mask={"paths": paths})
    with pytest.raises(NotFound):
        await admin("UpdateWebhook", name="none", webhook={}, update_mask={"paths": ["resource"]})


async def test_lists_deletion_and_limits(running_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    admin = await running_stack.admin()
    few = Limit("webhooks", 2, "webhooks", "few")
    monkeypatch.setitem(LIMITS, "webhooks", few)
    for name in ("b", "a"):
        await hook(admin, "https://example.com/", name)
    with pytest.raises(LimitExceeded):
        await hook(admin, "https://example.com/", "c")
    assert [webhook.name for webhook in (await admin("ListWebhooks")).webhooks] == ["a", "b"]
    assert (await admin("ListWebhooks", filter="name = 'b'")).webhooks[0].url == "https://example.com/"
    assert (await admin("DeleteWebhook", name="a")).deleted
    assert not (await admin("DeleteWebhook", name="a")).deleted
    for method, field in (
        ("GetWebhook", "name"),
        ("PauseWebhook", "name"),
        ("ListWebhookDeliveries", "webhook"),
    ):
        with pytest.raises(NotFound):
            await admin(method, **{field: "a"})
        with pytest.raises(InvalidField):
            await admin(method)
    most = LIMITS["webhook_types"].maximum
    names = [f"t.{'a' * (number + 1)}" for number in range(most + 1)]
    assert len((await hook(admin, "https://example.com/", "full", types=names[:most])).webhook.types) == most
    with pytest.raises(LimitExceeded):
        await hook(admin, "https://example.com/", "over", types=names)
    for wrong in ({"name": "A"}, {"types": ["*"]}, {"types": ["catalog.*.moved"]}, {"resource": "a\0"}):
        with pytest.raises(InvalidField):
            await hook(admin, "https://example.com/", **({"name": "d"} | wrong))


async def test_a_full_queue_waits_in_the_chain(running_stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Limit("webhook_backlog", 1, "deliveries", "few")
    monkeypatch.setitem(LIMITS, "webhook_backlog", few)
    monkeypatch.setattr(dispatcher, "BATCH", 1)
    admin = await running_stack.admin()
    async with receiver() as before:
        pass
    await hook(admin, before.url)
    await happen(admin, "ada", "eve", "bob")
    await eventually(lambda: _failures(admin, "ops"))
    assert len(await log(admin)) == 1
    async with receiver(port=before.port) as ops:
        await eventually(lambda: [event["subject"] for event in ops.events][-1:] == ["bob"])
        assert list(dict.fromkeys(event["subject"] for event in ops.events)) == ["ada", "eve", "bob"]


async def test_old_entries_of_the_log_are_forgotten(
    running_stack: Stack, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = await running_stack.admin()
    async with receiver() as ops:
        await hook(admin, ops)
        await happen(admin, "ada")
        await settled(admin, 1)
    monkeypatch.setattr(dispatcher, "KEPT", timedelta(0))
    database = Database.connect(dsn)
    try:
        made = dispatcher.Dispatcher(
            database=database,
            sender=None,
            clock=utc_now,
            lease=timedelta(seconds=9),  # type: ignore[arg-type]
        )
        await made.step()
    finally:
        await database.close()
    assert await log(admin) == []


async def test_webhooks_need_manage_on_the_system(running_stack: Stack) -> None:
    ada = await running_stack.user("ada", await running_stack.admin())
    for method in (
        "CreateWebhook",
        "GetWebhook",
        "ListWebhooks",
        "PauseWebhook",
        "ResumeWebhook",
        "DeleteWebhook",
        "ListWebhookDeliveries",
        "ReplayWebhookDeliveries",
    ):
        with pytest.raises(PermissionDenied):
            await ada(method)
