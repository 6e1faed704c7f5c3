"""Governance is killed between a change and its webhook: the event still arrives, with the id that makes a second time harmless."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from modelyard_kit.faults import CRASH_EXIT_CODE
from modelyard_suite.secrets import ensure_tokens
from tests.framework.receiver import receiver
from tests.framework.waiting import eventually

from .test_approval_faults import admin, governance


@pytest.mark.parametrize(
    ("failpoint", "arrived_before"),
    [("governance.webhook.claimed", 0), ("governance.webhook.sent", 1)],
)
async def test_a_crash_before_or_after_sending_loses_nothing(
    fresh_database: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failpoint: str,
    arrived_before: int,
) -> None:
    monkeypatch.setenv("MODELYARD_WEBHOOK_PRIVATE_TARGETS", "true")
    monkeypatch.setenv("MODELYARD_WEBHOOK_TIMEOUT_SECONDS", "1")
    dsn = fresh_database("modelyard_governance")
    (tmp_path / "secrets").mkdir(mode=0o700)
    ensure_tokens(tmp_path / "secrets")
    async with receiver() as ops:
        async with (
            governance(dsn, tmp_path, f"{failpoint}=crash") as process,
            grpc.aio.insecure_channel(f"unix:{tmp_path}/g") as channel,
        ):
            caller = await admin(tmp_path, channel)
            wanted = {"name": "ops", "url": ops.url, "types": ["governance.principal.*"], "resource": "ada"}
            secret = (await caller("CreateWebhook", webhook=wanted)).secret
            await caller("CreatePrincipal", principal={"name": "ada", "kind": "KIND_USER"})
            assert await asyncio.wait_for(process.wait(), 60) == CRASH_EXIT_CODE
        assert len(ops.bodies) == arrived_before
        async with governance(dsn, tmp_path):
            await eventually(lambda: len(ops.bodies) == arrived_before + 1)
            assert ops.signed_with(secret)
            assert {event["subject"] for event in ops.events} == {"ada"}
            assert len(set(ops.ids())) == 1
