"""Modelyard: catalog, artifact store, governance and serving of models.

from modelyard import Client

client = Client.from_context()
version = client.log_model(model, "prod.ml_team.iris", example=X[:5], metrics={"accuracy": 0.97})
client.deploy("prod.ml_team.iris", version.name)
client.predict("prod.ml_team.iris", X[:5]).output
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard import errors, types
    from modelyard.aio import AsyncClient
    from modelyard.client import Client, Pager
    from modelyard.errors import MissingExtra, ModelyardError
    from modelyard.references import InvalidReference, VersionReference, parse_version_reference
    from modelyard.remote import RemoteModel
    from modelyard.signature import infer_signature
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
    "RemoteModel",
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


# Where a name is that is no name of `types`. Nothing is imported before it is asked for: services, which need only the
# contracts in `modelyard.api`, and most verbs of the command line start in half the time.
_HOMES = {
    "AsyncClient": "aio",
    "Client": "client",
    "InvalidReference": "references",
    "MissingExtra": "errors",
    "ModelyardError": "errors",
    "Pager": "client",
    "RemoteModel": "remote",
    "VersionReference": "references",
    "infer_signature": "signature",
    "parse_version_reference": "references",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name == "__version__":
        return importlib.import_module("modelyard._channel").version()
    if name in {"errors", "types"}:
        return importlib.import_module(f"modelyard.{name}")
    if name in __all__:
        return getattr(importlib.import_module(f"modelyard.{_HOMES.get(name, 'types')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
