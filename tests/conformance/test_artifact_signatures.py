"""Signatures over the contract: checked at commit, added later, shown with today's trust."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.api.artifact.v1.artifact_pb2 import Signature
from modelyard.api.governance.v1.trust_pb2 import TrustRoot
from modelyard.signing import SIGNATURE_FILE, sign
from modelyard.types import FileEntry
from modelyard_artifact.errors import SignatureInvalid
from modelyard_kit.errors import InvalidField, LimitExceeded, NotFound, PermissionDenied
from modelyard_kit.limits import LIMITS
from tests.framework.artifact import (
    MODEL,
    NOBODY_KNOWN,
    OTHER_MODEL,
    ArtifactService,
    artifact_service,
    missing_pieces,
    sha,
)
from tests.framework.keys import Key

FILES = {"model.onnx": b"weights", "conf/a.json": b"{}"}


@pytest.fixture
async def service(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[ArtifactService]:
    async with artifact_service(fresh_database("modelyard_artifact"), tmp_path / "blobs") as running:
        yield running


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path)


def signed(key: Key, files: dict[str, bytes] | None = None) -> str:
    entries = [FileEntry(path, len(data), sha(data)) for path, data in (files or FILES).items()]
    return sign(entries, name=MODEL, private_key=key.private)


def trust(service: ArtifactService, key: Key) -> None:
    kind = TrustRoot.KIND_PUBLIC_KEY
    service.governance.trust_roots = [TrustRoot(name="team", kind=kind, pem=key.pem)]


async def listed(service: ArtifactService, digest: str) -> list[Any]:
    request = pb.CheckSignaturesRequest(digest=digest, model=MODEL)
    return list((await service.client().call("CheckSignatures", request)).signatures)


async def add(service: ArtifactService, digest: str, bundle: str, model: str = MODEL) -> Any:
    request = pb.AddSignatureRequest(digest=digest, model=model, bundle=bundle)
    return (await service.client().call("AddSignature", request)).signature


async def test_a_signature_that_comes_with_the_commit(service: ArtifactService, key: Key) -> None:
    trust(service, key)
    client = service.client()
    upload = await client.begin(FILES)
    await client.send(missing_pieces(upload, FILES.values()))
    bundle = signed(key)
    digest = (await client.commit(upload.id, bundle)).digest
    (found,) = await listed(service, digest)
    assert (found.trust, found.trust_root) == (Signature.TRUST_TRUSTED, "team")
    assert found.bundle == bundle


async def test_a_signature_of_other_files_stops_the_commit_but_not_the_upload(
    service: ArtifactService, key: Key
) -> None:
    trust(service, key)
    client = service.client()
    upload = await client.begin(FILES)
    await client.send(missing_pieces(upload, FILES.values()))
    with pytest.raises(SignatureInvalid, match="another content of 'conf/a.json'"):
        await client.commit(upload.id, signed(key, FILES | {"conf/a.json": b"[]"}))
    with pytest.raises(NotFound):
        await listed(service, upload.artifact_digest)
    digest = (await client.commit(upload.id, signed(key))).digest
    assert len(await listed(service, digest)) == 1


async def test_the_signature_file_of_a_folder_is_checked(service: ArtifactService, key: Key) -> None:
    files = FILES | {SIGNATURE_FILE: signed(key).encode()}
    digest = await service.client().upload(files)
    (found,) = await listed(service, digest)
    assert found.trust == Signature.TRUST_UNKNOWN_KEY
    forged = FILES | {SIGNATURE_FILE: signed(key, {"model.onnx": b"other"}).encode()}
    with pytest.raises(SignatureInvalid):
        await service.client().upload(forged)
    for nonsense in (b"", b"\xff\xfe", b"{}"):
        with pytest.raises(SignatureInvalid):
            await service.client().upload(FILES | {SIGNATURE_FILE: nonsense})


async def test_trust_comes_and_goes(service: ArtifactService, key: Key) -> None:
    digest = await service.client().upload(FILES)
    first = await add(service, digest, signed(key))
    assert first.trust == Signature.TRUST_UNKNOWN_KEY
    trust(service, key)
    second = await add(service, digest, signed(key))
    assert second.trust == Signature.TRUST_TRUSTED
    assert [each.trust for each in await listed(service, digest)] == [Signature.TRUST_TRUSTED] * 2
    service.governance.trust_roots = []
    trusts = [each.trust for each in await listed(service, digest)]
    assert trusts == [Signature.TRUST_UNKNOWN_KEY, Signature.TRUST_NO_LONGER]


async def test_the_same_bundle_twice_is_one_signature(service: ArtifactService, key: Key) -> None:
    digest = await service.client().upload(FILES)
    bundle = signed(key)
    assert (await add(service, digest, bundle)).id == (await add(service, digest, bundle)).id
    assert len(await listed(service, digest)) == 1


async def test_refusals(service: ArtifactService, key: Key) -> None:
    digest = await service.client().upload(FILES)
    with pytest.raises(InvalidField, match="bundle"):
        await add(service, digest, "")
    with pytest.raises(SignatureInvalid):
        await add(service, digest, "{}")
    with pytest.raises(NotFound):
        await add(service, digest, signed(key), OTHER_MODEL)
    with pytest.raises(NotFound):
        await add(service, f"sha256:{'0' * 64}", signed(key))
    request = pb.AddSignatureRequest(digest=digest, model=MODEL, bundle=signed(key))
    with pytest.raises(PermissionDenied):
        await service.client(NOBODY_KNOWN).call("AddSignature", request)


async def test_at_most_so_many(service: ArtifactService, key: Key) -> None:
    digest = await service.client().upload(FILES)
    for _ in range(LIMITS["signatures_per_artifact"].maximum):
        await add(service, digest, signed(key))  # each has other random numbers inside
    with pytest.raises(LimitExceeded):
        await add(service, digest, signed(key))


async def test_at_most_so_large(service: ArtifactService) -> None:
    digest = await service.client().upload(FILES)
    most = LIMITS["signature_bytes"].maximum
    with pytest.raises(SignatureInvalid):  # looked at, and none
        await add(service, digest, "x" * most)
    with pytest.raises(LimitExceeded):
        await add(service, digest, "x" * (most + 1))
