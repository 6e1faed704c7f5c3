"""Signatures of artifacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard import errors
from modelyard._artifacts import AsyncArtifacts
from modelyard._convert import from_proto, rows
from modelyard._namespace import Namespace, resource_name, version_reference
from modelyard._versions import AsyncVersions
from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
from modelyard.references import parse_version_reference
from modelyard.signing import sign
from modelyard.types import ArtifactSignature, VersionState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class AsyncSignatures(Namespace):
    """`client.signatures`: OpenSSF model signatures of artifacts."""

    async def sign(
        self,
        reference: str,
        private_key: str | Path,
        *,
        password: str | None = None,
        certificate: str | Path | None = None,
        chain: Sequence[str | Path] = (),
    ) -> ArtifactSignature:
        """Sign the files of a version by their stored digests: nothing is downloaded. The key stays here.

        Args:
            reference: The version.
            private_key: PEM file of an elliptic curve key (P-256, P-384, P-521).
            password: Of the key file, if it has one.
            certificate: PEM file of a certificate of the key; then trust in its issuer is enough.
            chain: PEM files of certificates between it and the issuer that others trust.

        Raises:
            MissingExtra: `pip install 'modelyard[signing]'`.
            ValueError: the key cannot sign models.
        """
        name = version_reference(reference)
        artifacts = AsyncArtifacts(self._connection)
        digest = await artifacts.digest_of(name)
        model = parse_version_reference(name).model
        bundle = sign(
            await artifacts.list_files(name).collect(),
            name=model,
            private_key=private_key,
            password=password,
            certificate=certificate,
            chain=chain,
        )
        return await self.add(digest, bundle, model=model)

    async def add(self, digest: str, bundle: str, *, model: str) -> ArtifactSignature:
        """Add a signature that was made elsewhere, such as by `model_signing sign`, to an artifact of a model."""
        request = pb.AddSignatureRequest(digest=digest, model=resource_name(model, 3, "model"), bundle=bundle)
        answer = await self._connection.call(self._connection.artifact.AddSignature, request, timeout=60.0)
        return from_proto(ArtifactSignature, answer.signature)

    async def remove(self, reference: str, signature_id: str) -> bool:
        """Take a signature away from a version's artifact, wherever that is used; False if it had none with this id.

        Raises:
            InvalidState: the version has no artifact.
        """
        digest, model = await self._artifact_of(reference)
        request = pb.RemoveSignatureRequest(digest=digest, model=model, signature_id=signature_id)
        answer = await self._connection.call(self._connection.artifact.RemoveSignature, request)
        return answer.removed

    async def list(self, reference: str) -> tuple[ArtifactSignature, ...]:
        """The signatures of a version's artifact, oldest first, with whether they are trusted now.

        `bundle` is empty for callers who may not read the files, whose hashes it names.

        Raises:
            InvalidState: the version has no artifact.
        """
        digest, model = await self._artifact_of(reference)
        request = pb.CheckSignaturesRequest(digest=digest, model=model)
        answer = await self._connection.call(self._connection.artifact.CheckSignatures, request, timeout=60.0)
        return tuple(rows(ArtifactSignature, answer.signatures))

    async def _artifact_of(self, reference: str) -> tuple[str, str]:
        """Digest and model of a version, from the catalog: it asks for no right to read the files."""
        name = version_reference(reference)
        version = await AsyncVersions(self._connection).get(name)
        if version.state in (VersionState.PENDING, VersionState.FAILED):
            raise errors.InvalidState(f"{name} has no artifact, and so no signatures: it is {version.state}")
        return version.artifact_digest, parse_version_reference(name).model
