"""Requests of updates, deletions and copies: what they come down to, and the field that each refusal names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1.model_pb2 import Model, ModelVersion, Provenance
from modelyard.api.catalog.v1.namespace_pb2 import Catalog, Schema
from modelyard.api.common.v1 import resource_pb2
from modelyard_catalog import lifecycle_messages as messages
from modelyard_catalog.commands import CopyVersion, Delete, Undelete, VersionRef
from modelyard_catalog.models import DatasetReference
from modelyard_kit.access import ResourceType
from modelyard_kit.errors import InvalidField, LimitExceeded

IRIS = ("prod", "ml", "iris")
ID = "0198c0de-0000-7000-8000-000000000001"


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


def test_only_masked_fields_change() -> None:
    catalog = Catalog(name="live", description="new", owner_id="o", etag="7")
    request = service.UpdateCatalogRequest(name="prod", catalog=catalog, update_mask=mask("description"))
    command = messages.parse_update_catalog(request)
    assert (command.path, command.etag, command.description) == (("prod",), "7", "new")
    assert (command.new_path, command.owner_id) == (None, None)


def test_model_may_move_and_schema_may_not() -> None:
    model = service.UpdateModelRequest(
        name="prod.ml.iris", model=Model(name="live.team.rose"), update_mask=mask("name", "name")
    )
    assert messages.parse_update_model(model).new_path == ("live", "team", "rose")
    schema = service.UpdateSchemaRequest(
        name="prod.ml", schema=Schema(name="live.ml"), update_mask=mask("name")
    )
    with pytest.raises(InvalidField, match=r"write prod\.ml") as caught:
        messages.parse_update_schema(schema)
    assert caught.value.metadata == {"field": "schema.name"}


def test_changes_of_a_version_are_those_of_the_mask() -> None:
    version = ModelVersion(
        description="new",
        label="1.4.0",
        provenance=Provenance(source="ignored", datasets=[{"name": "lake", "role": "training"}]),
    )
    paths = mask("label", "provenance.datasets", "metadata", "signature")
    request = service.UpdateModelVersionRequest(
        name="prod.ml.iris/3", model_version=version, update_mask=paths
    )
    command = messages.parse_update_version(request)
    assert command.version == VersionRef(IRIS, 3)
    assert dict(command.changes) == {
        "label": "1.4.0",
        "datasets": (DatasetReference("lake", role="training"),),
        "metadata": None,
        "signature": None,
    }


def of_version(*paths: str, name: str = "prod.ml.iris/3", **given: Any) -> service.UpdateModelVersionRequest:
    return service.UpdateModelVersionRequest(
        name=name, model_version=ModelVersion(**given), update_mask=mask(*paths)
    )


def of_model(*paths: str, **given: Any) -> service.UpdateModelRequest:
    return service.UpdateModelRequest(name="prod.ml.iris", model=Model(**given), update_mask=mask(*paths))


@pytest.mark.parametrize(
    ("parse", "request_", "field"),
    [
        (messages.parse_update_model, service.UpdateModelRequest(name="prod.ml.iris"), "model"),
        (messages.parse_update_model, of_model(), "update_mask"),
        (messages.parse_update_model, of_model("tags"), "update_mask"),
        (messages.parse_update_model, of_model("name"), "model.name"),
        (messages.parse_update_model, of_model("name", name="iris"), "model.name"),
        (messages.parse_update_model, of_model("owner_id"), "model.owner_id"),
        (messages.parse_update_model, service.UpdateModelRequest(name="iris"), "name"),
        (messages.parse_update_version, of_version("label", name="prod.ml.iris@x"), "name"),
        (messages.parse_update_version, of_version("artifact_digest"), "update_mask"),
        (messages.parse_update_version, of_version("provenance"), "update_mask"),
        (messages.parse_update_version, of_version("label", label="7"), "model_version.label"),
        (messages.parse_update_version, of_version("label", label="Latest"), "model_version.label"),
        (messages.parse_update_version, of_version("label", label="x" * 64), "model_version.label"),
        (messages.parse_delete_version, service.DeleteModelVersionRequest(name="prod.ml.iris@a"), "name"),
        (messages.parse_undelete, service.UndeleteResourceRequest(id=ID), "type"),
        (
            messages.parse_undelete,
            service.UndeleteResourceRequest(type=resource_pb2.RESOURCE_TYPE_DEPLOYMENT, id=ID),
            "type",
        ),
        (
            messages.parse_undelete,
            service.UndeleteResourceRequest(type=resource_pb2.RESOURCE_TYPE_MODEL, id="prod.ml.iris"),
            "id",
        ),
        (messages.parse_copy, service.CopyModelVersionRequest(model="prod.ml.iris"), "source"),
        (messages.parse_copy, service.CopyModelVersionRequest(source="prod.ml.iris"), "model"),
        (
            messages.parse_copy,
            service.CopyModelVersionRequest(source="prod.ml.iris", model="prod.ml.iris", label="-"),
            "label",
        ),
    ],
)
def test_refusal_names_its_field(parse: Callable[[Any], object], request_: Any, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        parse(request_)
    assert caught.value.metadata == {"field": field}


def test_texts_are_limited() -> None:
    with pytest.raises(LimitExceeded):
        messages.parse_update_model(of_model("description", description="x" * 5_001))


def test_deletions_and_what_undoes_them() -> None:
    schema = service.DeleteSchemaRequest(name="prod.ml", etag="3", force=True)
    assert messages.parse_delete(schema, 2) == Delete(("prod", "ml"), "3", force=True)
    version = service.DeleteModelVersionRequest(name="models:/prod.ml.iris/3")
    assert messages.parse_delete_version(version) == Delete(VersionRef(IRIS, 3), "", force=False)
    undelete = service.UndeleteResourceRequest(type=resource_pb2.RESOURCE_TYPE_MODEL_VERSION, id=ID.upper())
    assert messages.parse_undelete(undelete) == Undelete(ResourceType.MODEL_VERSION, ID)


def test_copy_takes_any_reference_and_ignores_its_request_id_in_the_fingerprint() -> None:
    def parse(**given: str) -> CopyVersion:
        return messages.parse_copy(
            service.CopyModelVersionRequest(source="prod.ml.iris@1.4.0", model="prod.ml.rose", **given)
        )

    first, second, other = parse(request_id="a"), parse(request_id="b"), parse(label="1.0")
    assert (first.source, first.model) == (VersionRef(IRIS, alias="1.4.0"), ("prod", "ml", "rose"))
    assert first.once.fingerprint == second.once.fingerprint != other.once.fingerprint
