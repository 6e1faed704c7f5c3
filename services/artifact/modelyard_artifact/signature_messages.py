"""Messages of signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelyard.api.artifact.v1 import artifact_pb2
from modelyard_artifact.messages import parse_digest, parse_model, parse_signature_id
from modelyard_artifact.models import Standing
from modelyard_artifact.signatures import AddSignature, RemoveSignature
from modelyard_kit.errors import InvalidField
from modelyard_kit.limits import check
from modelyard_kit.protos import timestamp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard.api.artifact.v1 import artifact_service_pb2 as pb
    from modelyard_artifact.models import Signature

_TRUST = {
    Standing.TRUSTED: artifact_pb2.Signature.TRUST_TRUSTED,
    Standing.UNKNOWN_KEY: artifact_pb2.Signature.TRUST_UNKNOWN_KEY,
    Standing.NO_LONGER: artifact_pb2.Signature.TRUST_NO_LONGER,
}


def parse_add_signature(request: pb.AddSignatureRequest) -> AddSignature:
    """Checks digest, model and bundle.

    Raises:
        InvalidField: any of them.
        LimitExceeded: the bundle is too large.
    """
    if not request.bundle:
        raise InvalidField("bundle", "is required: the JSON that model_signing or modelyard wrote")
    check("signature_bytes", len(request.bundle.encode()))
    return AddSignature(parse_digest(request.digest), parse_model(request.model), request.bundle)


def parse_remove_signature(request: pb.RemoveSignatureRequest) -> RemoveSignature:
    """Checks digest, model and id.

    Raises:
        InvalidField: any of them.
    """
    signature_id = parse_signature_id(request.signature_id)
    return RemoveSignature(parse_digest(request.digest), parse_model(request.model), signature_id)


def parse_bundles(request: pb.CommitUploadRequest) -> Sequence[str]:
    """Returns the signatures that come with a commit.

    Raises:
        InvalidField: one is empty.
        LimitExceeded: too many, or one too large.
    """
    check("signatures_per_artifact", len(request.signatures))
    for index, bundle in enumerate(request.signatures):
        if not bundle:
            raise InvalidField(f"signatures[{index}]", "is empty")
        check("signature_bytes", len(bundle.encode()))
    return request.signatures


def signature_to_proto(signature: Signature) -> artifact_pb2.Signature:
    """Returns the message of a signature."""
    return artifact_pb2.Signature(
        id=signature.id,
        artifact_digest=signature.digest,
        signer=signature.signer,
        trust=_TRUST[signature.standing],
        trust_root=signature.trust_root,
        bundle=signature.bundle,
        create_time=timestamp(signature.create_time),
    )
