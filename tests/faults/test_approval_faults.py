"""Governance ends between a review and telling the catalog of it: the catalog still learns of it, and nothing is set back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from modelyard.api.catalog.v1.catalog_service_pb2_grpc import add_CatalogServiceServicer_to_server
from modelyard.api.governance.v1 import approval_pb2
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from modelyard_kit.errors import PeerUnavailable
from modelyard_kit.faults import CRASH_EXIT_CODE
from modelyard_suite.secrets import ensure_tokens
from tests.conformance.governance_stack import IRIS_1, Caller, Catalog


@asynccontextmanager
async def governance(
    dsn: str, folder: Path, failpoints: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the service as a process of its own; it may have ended by itself."""
    settings = {
        "LISTEN": f"unix:{folder}/g",
        "DATABASE": dsn,
        "TOKEN_FILE": folder / "secrets" / "governance.token",
        "CATALOG_ADDRESS": f"unix:{folder}/n",
        "SIGNING_KEY_FILE": folder / "secrets" / "signing_key.pem",
        "BOOTSTRAP_DIRECTORY": folder / "secrets",
        "DRAIN_SECONDS": 0,
        "FAILPOINTS": failpoints,
    }
    (folder / "g").unlink(missing_ok=True)
    environment = {**os.environ, **{f"MODELYARD_{name}": str(value) for name, value in settings.items()}}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "modelyard_governance", env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def admin(folder: Path, channel: grpc.aio.Channel) -> Caller:
    """Log in as the administrator once the service answers."""
    stub = GovernanceServiceStub(channel)
    secret = (folder / "secrets" / "admin.token").read_text().strip()
    async with asyncio.timeout(60):
        while not (folder / "g").exists():  # a channel that found nothing there would wait longer and longer
            await asyncio.sleep(0.05)
        while True:
            try:
                answer = await Caller(stub)("ExchangeToken", api_token=secret)
            except PeerUnavailable:
                await asyncio.sleep(0.1)
            else:
                return Caller(stub, answer.access_token)


@pytest.mark.parametrize(
    ("failpoint", "told_before"),
    [
        ("governance.review.committed", 0),
        ("governance.approvals.telling", 0),
        ("governance.approvals.told", 1),
    ],
)
async def test_an_end_between_review_and_telling_loses_nothing(
    fresh_database: Callable[[str], str], tmp_path: Path, failpoint: str, told_before: int
) -> None:
    dsn = fresh_database("modelyard_governance")
    (tmp_path / "secrets").mkdir(mode=0o700)
    ensure_tokens(tmp_path / "secrets")
    catalog = Catalog(author_id="somebody")
    server = grpc.aio.server()
    add_CatalogServiceServicer_to_server(catalog, server)
    server.add_insecure_port(f"unix:{tmp_path}/n")
    await server.start()
    told = (IRIS_1.id, "APPROVED", 1)
    try:
        async with (
            governance(dsn, tmp_path, f"{failpoint}=crash") as process,
            grpc.aio.insecure_channel(f"unix:{tmp_path}/g") as channel,
        ):
            caller = await admin(tmp_path, channel)
            try:
                await caller(
                    "ReviewVersion", model_version=IRIS_1.name, decision=approval_pb2.Review.DECISION_APPROVE
                )
            except PeerUnavailable:
                assert failpoint == "governance.review.committed"
            assert await asyncio.wait_for(process.wait(), 60) == CRASH_EXIT_CODE
        assert catalog.told == [told] * told_before

        async with (
            governance(dsn, tmp_path),
            grpc.aio.insecure_channel(f"unix:{tmp_path}/g") as channel,
        ):
            caller = await admin(tmp_path, channel)
            async with asyncio.timeout(60):
                while len(catalog.told) == told_before:
                    await asyncio.sleep(0.05)
            assert catalog.told == [told] * (told_before + 1)
            (listed,) = (await caller("ListApprovals")).approvals
            assert listed.state == approval_pb2.Approval.STATE_APPROVED
    finally:
        await server.stop(0)
