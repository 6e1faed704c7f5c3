"""Modelyard: catalog, artifact store, governance and serving of models.

from modelyard import Client

client = Client.from_context()
version = client.log_model(model, "prod.ml_team.iris", example=X[:5], metrics={"accuracy": 0.97})
client.deploy("prod.ml_team.iris", version.name)
client.predict("prod.ml_team.iris", X[:5]).output
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard import errors, types
from modelyard._channel import version as _version
from modelyard.aio import AsyncClient
from modelyard.client import Client, Pager
from modelyard.errors import MissingExtra, ModelyardError
from modelyard.references import InvalidReference, VersionReference, parse_version_reference
from modelyard.types import (
    CustomMetadata,
    Dataset,
    Effect,
    InputLayout,
    LineageEdge,
    LineageNode,
    MethodSignature,
    ModelMetadata,
    Prediction,
    PrincipalKind,
    Privilege,
    ResourceType,
    Signature,
    TensorSpec,
    TrafficTarget,
)

if TYPE_CHECKING:
    from modelyard.signature import infer_signature

__all__ = [
    "AsyncClient",
    "Client",
    "CustomMetadata",
    "Dataset",
    "Effect",
    "InputLayout",
    "InvalidReference",
    "LineageEdge",
    "LineageNode",
    "MethodSignature",
    "MissingExtra",
    "ModelMetadata",
    "ModelyardError",
    "Pager",
    "Prediction",
    "PrincipalKind",
    "Privilege",
    "ResourceType",
    "Signature",
    "TensorSpec",
    "TrafficTarget",
    "VersionReference",
    "errors",
    "infer_signature",
    "parse_version_reference",
    "types",
]


def __getattr__(name: str) -> Any:
    """What needs numpy, or the installed package's data, is read when it is asked for."""
    if name == "infer_signature":
        from modelyard.signature import infer_signature

        return infer_signature
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
