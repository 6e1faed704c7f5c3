"""Requests of updates, deletions and copies to commands, every shape check included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1 import model_pb2
from modelyard_catalog import names, values
from modelyard_catalog.commands import CopyVersion, Delete, Undelete, Update, UpdateVersion
from modelyard_catalog.messages import once
from modelyard_catalog.metadata import metadata_from_proto
from modelyard_catalog.models import Path
from modelyard_kit.errors import InvalidField

_CONTAINER_FIELDS = ("name", "description", "owner_id")


def parse_update_catalog(request: service.UpdateCatalogRequest) -> Update:
    """Check the shape of a request to change a catalog."""
    return _update(request, "catalog", request.catalog, 1)


def parse_update_schema(request: service.UpdateSchemaRequest) -> Update:
    """Check the shape of a request to change a schema."""
    command = _update(request, "schema", request.schema, 2)
    if command.new_path is not None and command.new_path[0] != command.path[0]:
        raise InvalidField(
            "schema.name", f"a schema stays in its catalog: write {command.path[0]}.{command.new_path[1]}"
        )
    return command


def parse_update_model(request: service.UpdateModelRequest) -> Update:
    """Check the shape of a request to change a model."""
    return _update(request, "model", request.model, 3)


def _update(request: Any, field: str, message: Any, parts: int) -> Update:
    path = names.path("name", request.name, parts)
    mask = _mask(request, field, _CONTAINER_FIELDS)
    new_path: Path | None = None
    if "name" in mask:
        new_path = names.path(f"{field}.name", message.name, parts)
    description = None
    if "description" in mask:
        description = values.text(f"{field}.description", message.description, "description_length")
    owner_id = None
    if "owner_id" in mask:
        if not message.owner_id:
            raise InvalidField(f"{field}.owner_id", "is required: everything has an owner")
        owner_id = values.text(f"{field}.owner_id", message.owner_id, "request_id_length")
    return Update(path=path, etag=message.etag, new_path=new_path, description=description, owner_id=owner_id)


def parse_update_version(request: service.UpdateModelVersionRequest) -> UpdateVersion:
    """Check the shape of a request to change a version."""
    version = names.numbered_version("name", request.name)
    mask = _mask(request, "model_version", tuple(_VERSION_FIELDS))
    message = request.model_version
    changes: dict[str, Any] = {}
    for path in mask:
        name, read = _VERSION_FIELDS[path]
        changes[name] = read(f"model_version.{path}", message)
    return UpdateVersion(version, message.etag, changes)


def _mask(request: Any, field: str, allowed: Sequence[str]) -> tuple[str, ...]:
    """Return the fields to change, each once."""
    if not request.HasField(field):
        raise InvalidField(field, "is required")
    found = tuple(dict.fromkeys(request.update_mask.paths))
    can = f"these can: {', '.join(allowed)}"
    if not found:
        raise InvalidField("update_mask", f"name the fields to change; {can}")
    for path in found:
        if path not in allowed:
            raise InvalidField("update_mask", f"{path[:80]!r} cannot be changed; {can}")
    return found


def _description(field: str, message: model_pb2.ModelVersion) -> str:
    return values.text(field, message.description, "description_length")


def _label(field: str, message: model_pb2.ModelVersion) -> str:
    return names.label(field, message.label)


def _metadata(field: str, message: model_pb2.ModelVersion) -> object:
    return metadata_from_proto(field, message.metadata) if message.HasField("metadata") else None


def _signature(field: str, message: model_pb2.ModelVersion) -> object:
    return values.signature(field, message.signature) if message.HasField("signature") else None


def _datasets(field: str, message: model_pb2.ModelVersion) -> object:
    return values.datasets(field, message.provenance.datasets)


_VERSION_FIELDS: Mapping[str, tuple[str, Callable[[str, model_pb2.ModelVersion], object]]] = {
    "description": ("description", _description),
    "label": ("label", _label),
    "metadata": ("metadata", _metadata),
    "signature": ("signature", _signature),
    "provenance.datasets": ("datasets", _datasets),
}


def parse_delete(request: Any, parts: int) -> Delete:
    """Check the shape of a request to delete a catalog, schema or model, whose name has so many parts."""
    return Delete(names.path("name", request.name, parts), request.etag, request.force)


def parse_delete_version(request: service.DeleteModelVersionRequest) -> Delete:
    """Check the shape of a request to delete a version."""
    return Delete(names.numbered_version("name", request.name), request.etag, request.force)


def parse_undelete(request: service.UndeleteResourceRequest) -> Undelete:
    """Check the shape of a request to bring something back."""
    return Undelete(names.resource_type("type", request.type), names.identifier("id", request.id))


def parse_copy(request: service.CopyModelVersionRequest) -> CopyVersion:
    """Check the shape of a request to copy a version."""
    return CopyVersion(
        source=names.version("source", request.source),
        model=names.path("model", request.model, 3),
        label=names.label("label", request.label),
        once=once(request),
    )
