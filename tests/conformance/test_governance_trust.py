"""Trust roots over the contract, on real PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.api.common.v1 import resource_pb2
from modelyard.api.governance.v1.trust_pb2 import TrustRoot
from modelyard_governance.trust import read_anchor
from modelyard_kit.errors import (
    AlreadyExists,
    InvalidField,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    RequestIdReused,
)
from modelyard_kit.limits import LIMITS
from tests.conformance.governance_stack import Stack, stack
from tests.framework.keys import Key, certificate
from tests.framework.waiting import eventually

ON_SYSTEM = {"resource_type": resource_pb2.RESOURCE_TYPE_SYSTEM}
ON_PROD = {"resource_type": resource_pb2.RESOURCE_TYPE_CATALOG, "resource": "prod"}
ON_MODEL = {"resource_type": resource_pb2.RESOURCE_TYPE_MODEL, "resource": "prod.ml.iris"}


@pytest.fixture
async def running_stack(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(fresh_database("modelyard_governance"), tmp_path) as running:
        yield running


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path)


async def create(caller: Any, name: str, pem: str, **where: Any) -> TrustRoot:
    made: TrustRoot = (
        await caller("CreateTrustRoot", trust_root=TrustRoot(name=name, pem=pem), **where)
    ).trust_root
    return made


async def names(caller: Any, **where: Any) -> list[str]:
    return [root.name for root in (await caller("FindTrustRoots", **where)).trust_roots]


async def test_they_count_on_everything_inside(running_stack: Stack, key: Key, tmp_path: Path) -> None:
    admin = await running_stack.admin()
    authority = certificate(tmp_path, key, "authority").read_text()
    await create(admin, "everywhere", key.pem, **ON_SYSTEM)
    await create(admin, "company", authority, **ON_PROD)
    made = await create(admin, "team", key.pem, **ON_MODEL)
    assert (made.kind, made.resource.name) == (TrustRoot.KIND_PUBLIC_KEY, "prod.ml.iris")
    assert made.fingerprint.startswith("sha256:")
    assert await names(admin, **ON_MODEL) == ["team", "company", "everywhere"]
    assert await names(admin, **ON_PROD) == ["company", "everywhere"]
    assert (await admin("DeleteTrustRoot", name="company", **ON_PROD)).deleted
    assert not (await admin("DeleteTrustRoot", name="company", **ON_PROD)).deleted
    assert await names(admin, **ON_MODEL) == ["team", "everywhere"]
    expected = ["governance.trust_root.created"] * 3 + ["governance.trust_root.deleted"]

    async def audited() -> bool:
        log = (await admin("ListAuditEntries", page_size=1000)).entries
        return sorted(entry.event.type for entry in log if "trust_root" in entry.event.type) == expected

    await eventually(audited)


async def test_created_once(running_stack: Stack, key: Key, tmp_path: Path) -> None:
    admin = await running_stack.admin()
    first = await create(admin, "team", key.pem, request_id="r", **ON_MODEL)
    assert (await create(admin, "team", key.pem, request_id="r", **ON_MODEL)).id == first.id
    with pytest.raises(AlreadyExists):
        await create(admin, "team", Key(tmp_path, "other").pem, **ON_MODEL)
    with pytest.raises(RequestIdReused):
        await create(admin, "other", key.pem, request_id="r", **ON_MODEL)
    await create(admin, "team", key.pem, **ON_PROD)  # elsewhere the name is free


async def test_who_may(running_stack: Stack, key: Key) -> None:
    admin = await running_stack.admin()
    ada = await running_stack.user("ada", admin)
    with pytest.raises(PermissionDenied):
        await create(ada, "mine", key.pem, **ON_MODEL)
    with pytest.raises(PermissionDenied):
        await names(ada, **ON_MODEL)
    with pytest.raises(NotFound):
        await names(admin, resource_type=resource_pb2.RESOURCE_TYPE_MODEL, resource="prod.ml.none")
    with pytest.raises(InvalidField, match="resource_type"):
        await names(admin, resource_type=resource_pb2.RESOURCE_TYPE_DEPLOYMENT, resource="prod.ml.iris")


async def test_what_is_none(running_stack: Stack, key: Key, tmp_path: Path) -> None:
    admin = await running_stack.admin()
    private = key.private.read_text()
    for pem, problem in (
        ("", "0 PEM blocks"),
        (private, "private key"),
        (key.pem * 2, "2 PEM blocks"),
        ("-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----\n", "cannot be read"),
        ("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n", "cannot be read"),
    ):
        with pytest.raises(InvalidField, match=problem):
            await create(admin, "team", pem, **ON_MODEL)
    with pytest.raises(InvalidField, match="name"):
        await create(admin, "Not A Name", key.pem, **ON_MODEL)
    with pytest.raises(LimitExceeded):
        await create(admin, "team", "x" * (LIMITS["trust_root_bytes"].maximum + 1), **ON_MODEL)
    assert await names(admin, **ON_MODEL) == []


async def test_at_most_so_many_on_one_resource(running_stack: Stack, key: Key) -> None:
    admin = await running_stack.admin()
    most = LIMITS["trust_roots_per_resource"].maximum
    for number in range(most):
        await create(admin, f"key-{number}", key.pem, **ON_MODEL)
    with pytest.raises(LimitExceeded):
        await create(admin, "one-more", key.pem, **ON_MODEL)
    assert len(await names(admin, **ON_MODEL)) == most


def test_other_keys_cannot_sign_models() -> None:
    from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    for secret in (ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65_537, 2_048)):
        pem = secret.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        with pytest.raises(InvalidField, match="elliptic curve"):
            read_anchor(pem)
