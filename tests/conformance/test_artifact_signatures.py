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
from modelyard_kit.access import Effect, Privilege, ResourceGrant
from modelyard_kit.auth import Principal
from modelyard_kit.errors import InvalidField, LimitExceeded, NotFound, PermissionDenied
from modelyard_kit.ids import new_id
from modelyard_kit.limits import LIMITS
from tests.framework.artifact import (
    ADA,
    BOB,
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


async def listed(
    service: ArtifactService, digest: str, model: str = MODEL, principal: Principal = ADA
) -> list[Any]:
    request = pb.CheckSignaturesRequest(digest=digest, model=model)
    return list((await service.client(principal).call("CheckSignatures", request)).signatures)


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


async def test_who_may_not_read_the_files_does_not_learn_their_hashes(
    service: ArtifactService, key: Key
) -> None:
    trust(service, key)
    digest = await service.client().upload(FILES)
    await add(service, digest, signed(key))
    (mine,) = await listed(service, digest)
    (theirs,) = await listed(service, digest, principal=BOB)
    assert mine.bundle
    # Nor by what is told of the signature, whose own content may be a file among them.
    (told,) = await service.events("artifact.artifact.signed")
    assert sha(mine.bundle.encode()) not in str(told.data)
    assert theirs == Signature(
        **{field.name: value for field, value in mine.ListFields() if field.name != "bundle"}
    )


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


async def test_trust_that_one_model_lost_is_not_missing_in_another(
    service: ArtifactService, key: Key
) -> None:
    digest = await service.client().upload(FILES)
    await service.client().upload(FILES, model=OTHER_MODEL)
    trust(service, key)
    bundle = signed(key)
    await add(service, digest, bundle)
    service.governance.trust_roots = []  # those of the other model's catalog, if it asked
    (elsewhere,) = await listed(service, digest, OTHER_MODEL)
    assert (elsewhere.trust, elsewhere.trust_root) == (Signature.TRUST_UNKNOWN_KEY, "")
    (here,) = await listed(service, digest)
    assert (here.trust, here.trust_root) == (Signature.TRUST_NO_LONGER, "team")
    trust(service, key)
    assert (await add(service, digest, bundle, OTHER_MODEL)).trust == Signature.TRUST_TRUSTED
    service.governance.trust_roots = []
    assert [each.trust for each in await listed(service, digest, OTHER_MODEL)] == [Signature.TRUST_NO_LONGER]


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


async def remove(service: ArtifactService, digest: str, signature_id: str, who: Principal = ADA) -> bool:
    request = pb.RemoveSignatureRequest(digest=digest, model=MODEL, signature_id=signature_id)
    return bool((await service.client(who).call("RemoveSignature", request)).removed)


def give_edit(service: ArtifactService, who: Principal, *models: str) -> None:
    _, rights = service.grants.principals()[who.id]
    edit = [ResourceGrant(service.catalog.models[name], Privilege.EDIT, Effect.ALLOW) for name in models]
    service.grants.replace(who.id, who.name, [*rights, *edit])


async def test_a_signature_is_removed_once_and_told(service: ArtifactService, key: Key) -> None:
    digest = await service.client().upload(FILES)
    first, second = await add(service, digest, signed(key)), await add(service, digest, signed(key))
    with pytest.raises(PermissionDenied, match="EDIT"):  # to add is not to remove
        await remove(service, digest, first.id)
    give_edit(service, ADA, MODEL)
    assert await remove(service, digest, first.id)
    assert not await remove(service, digest, first.id)
    assert [each.id for each in await listed(service, digest)] == [second.id]
    [told] = await service.events("artifact.artifact.unsigned")
    assert (told.resource_id, told.actor) == (digest, "ada")
    assert (told.data["signature_id"], told.data["signer"]) == (first.id, first.signer)


async def test_a_signature_that_others_share_needs_edit_on_their_models_too(
    service: ArtifactService, key: Key
) -> None:
    give_edit(service, ADA, MODEL)
    digest = await service.client().upload(FILES)
    await service.client().upload(FILES, model=OTHER_MODEL)
    one = await add(service, digest, signed(key))
    with pytest.raises(PermissionDenied, match="another one has the same artifact") as caught:
        await remove(service, digest, one.id)
    assert OTHER_MODEL not in str(caught.value)
    assert len(await listed(service, digest)) == 1
    del service.catalog.models[OTHER_MODEL]  # gone: nobody has a say any more
    assert await remove(service, digest, one.id)


async def test_with_edit_on_all_models_a_shared_signature_goes(service: ArtifactService, key: Key) -> None:
    give_edit(service, ADA, MODEL, OTHER_MODEL)
    digest = await service.client().upload(FILES)
    await service.client().upload(FILES, model=OTHER_MODEL)
    assert await remove(service, digest, (await add(service, digest, signed(key))).id)


async def test_removals_that_are_refused(service: ArtifactService) -> None:
    give_edit(service, ADA, MODEL)
    digest = await service.client().upload(FILES)
    other = await service.client().upload({"a": b"a"}, model=OTHER_MODEL)
    for wrong, text in (("", "is required"), ("1", "'1' is no id")):
        with pytest.raises(InvalidField, match=f"signature_id: {text}"):
            await remove(service, digest, wrong)
    with pytest.raises(NotFound, match="artifact"):
        await remove(service, other, new_id())


async def test_signed_artifacts_are_found(service: ArtifactService, key: Key) -> None:
    plain, digest = await service.client().upload({"a": b"a"}), await service.client().upload(FILES)
    await add(service, digest, signed(key))
    for wanted, found in (("TRUE", [digest]), ("FALSE", [plain])):
        request = pb.ListArtifactsRequest(model=MODEL, filter=f"signed = {wanted}")
        answer = await service.client().call("ListArtifacts", request)
        assert [each.digest for each in answer.artifacts] == found


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
