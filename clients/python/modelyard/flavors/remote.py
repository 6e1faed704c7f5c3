"""Models that another server runs: nothing is saved but where; the signature is what that server says of the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from modelyard.errors import InvalidArgument
from modelyard.flavors import Prepared
from modelyard.remote import FILE_NAME, InvalidRemote, RemoteModel, target_of
from modelyard.types import MethodSignature, Signature, TensorSpec

if TYPE_CHECKING:
    from pathlib import Path

RUNTIME: Final = "remote"
PACKAGES = ("modelyard",)
_METADATA: Final = "/inference.GRPCInferenceService/ModelMetadata"
_SECONDS: Final = 10.0


def prepare(model: RemoteModel, folder: Path, *, signature: Signature | None) -> Prepared:
    """Write down where a model runs, with the signature that its server tells unless one is given."""
    signature = signature or infer(model)
    (folder / FILE_NAME).write_text(model.to_json(), encoding="utf-8")
    return Prepared(folder, RUNTIME, signature, PACKAGES)


def read(path: Path) -> RemoteModel:
    """Read the file of a folder that says where a model runs.

    Raises:
        InvalidArgument: it does not.
    """
    try:
        return RemoteModel.from_json(path.read_text(encoding="utf-8"))
    except (OSError, InvalidRemote, UnicodeDecodeError) as error:
        raise InvalidArgument(f"model: {path.name}: {error}") from error


def infer(model: RemoteModel) -> Signature:
    """Ask the server of a model what it takes and gives.

    Raises:
        InvalidArgument: it cannot be asked from here, or what it says is no signature.
    """
    from modelyard.api.oip.v2 import grpc_inference_pb2 as pb

    request = pb.ModelMetadataRequest(name=model.model, version=model.version)
    with _channel(model.url) as channel:
        ask: Any = channel.unary_unary(
            _METADATA,
            request_serializer=pb.ModelMetadataRequest.SerializeToString,
            response_deserializer=pb.ModelMetadataResponse.FromString,
        )
        try:
            answer: pb.ModelMetadataResponse = ask(request, timeout=_SECONDS)
        except grpc.RpcError as error:
            raise InvalidArgument(
                f"signature: {model.url} does not say what {model.model!r} takes and gives "
                f"({error.code().name}: {error.details()}); give signature=…"
            ) from error
    if not answer.inputs or not answer.outputs:
        raise InvalidArgument(
            f"signature: {model.url} names no inputs and outputs of {model.model!r}; give signature=…"
        )
    method = MethodSignature("predict", tuple(map(_spec, answer.inputs)), tuple(map(_spec, answer.outputs)))
    return Signature((method,))


def _channel(url: str) -> grpc.Channel:
    if url.startswith("grpcs:"):
        return grpc.secure_channel(target_of(url), grpc.ssl_channel_credentials())
    return grpc.insecure_channel(target_of(url))


def _spec(item: Any) -> TensorSpec:
    return TensorSpec(item.name, item.datatype, tuple(item.shape))
