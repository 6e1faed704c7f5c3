"""Requests to commands, every shape check included; `render.py` is the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from modelyard.api.catalog.v1 import catalog_service_pb2 as service
from modelyard.api.catalog.v1.model_pb2 import ModelVersion
from modelyard_catalog import names, values
from modelyard_catalog.commands import (
    AliasChange,
    ApprovalChange,
    ArtifactTestsChange,
    Browse,
    Create,
    CreateVersion,
    Fail,
    Finalize,
    Once,
    Resolve,
    SetAliases,
    SetMetrics,
    SetTags,
)
from modelyard_catalog.metadata import metadata_from_proto
from modelyard_catalog.metadata import size as metadata_size
from modelyard_catalog.models import ApprovalState, ArtifactTests, ArtifactTestsState, ModelMetadata
from modelyard_kit import idempotency, limits, paging
from modelyard_kit.errors import InvalidField

_MAX_USES = 1_000
MAX_APPROVAL_CHANGES = 1_000
MAX_TESTS_CHANGES = 100
_TESTS = {ModelVersion.ArtifactTests.Value(f"ARTIFACT_TESTS_{state}"): state for state in ArtifactTestsState}
_APPROVALS = {ModelVersion.ApprovalState.Value(f"APPROVAL_STATE_{state}"): state for state in ApprovalState}


class _Named(Protocol):
    """What the messages of catalogs, schemas and models have in common."""

    name: str
    description: str

    @property
    def tags(self) -> Mapping[str, str]: ...


def parse_create_catalog(request: service.CreateCatalogRequest) -> Create:
    """Check the shape of a request for a catalog."""
    return _create(request, "catalog", request.catalog, 1)


def parse_create_schema(request: service.CreateSchemaRequest) -> Create:
    """Check the shape of a request for a schema."""
    return _create(request, "schema", request.schema, 2)


def parse_create_model(request: service.CreateModelRequest) -> Create:
    """Check the shape of a request for a model."""
    return _create(request, "model", request.model, 3)


def _create(request: Any, field: str, message: _Named, parts: int) -> Create:
    if not request.HasField(field):
        raise InvalidField(field, "is required")
    return Create(
        path=names.path(f"{field}.name", message.name, parts),
        description=values.text(f"{field}.description", message.description, "description_length"),
        tags=values.tags(f"{field}.tags", message.tags),
        once=once(request),
    )


def parse_create_version(request: service.CreateModelVersionRequest) -> CreateVersion:
    """Check the shape of a request for a version."""
    return CreateVersion(
        model=names.path("model", request.model, 3),
        artifact_digest=names.digest("artifact_digest", request.artifact_digest)
        if request.artifact_digest
        else "",
        description=values.text("description", request.description, "description_length"),
        runtime=values.runtime("runtime", request.runtime),
        signature=values.signature("signature", request.signature) if request.HasField("signature") else None,
        tags=values.tags("tags", request.tags),
        metrics=values.metrics("metrics", request.metrics),
        provenance=values.provenance("provenance", request.provenance)
        if request.HasField("provenance")
        else None,
        metadata=metadata_from_proto("metadata", request.metadata) if request.HasField("metadata") else None,
        once=once(request),
        label=names.label("label", request.label),
    )


def parse_finalize(request: service.FinalizeModelVersionRequest) -> Finalize:
    """Check the shape of a request to finalize a version."""
    return Finalize(
        version=names.numbered_version("name", request.name),
        artifact_digest=names.digest("artifact_digest", request.artifact_digest),
    )


def parse_fail(request: service.FailModelVersionRequest) -> Fail:
    """Check the shape of a request to give a version up."""
    version = names.numbered_version("name", request.name)
    if not request.message.strip():
        raise InvalidField("message", "is required: say why")
    return Fail(version=version, message=values.text("message", request.message, "description_length"))


def parse_set_aliases(request: service.SetAliasesRequest) -> SetAliases:
    """Check the shape of a request to move aliases."""
    model = names.path("model", request.model, 3)
    if not request.changes:
        raise InvalidField("changes", "needs at least one change")
    limits.check("aliases_per_model", len(request.changes))
    changes: dict[str, AliasChange] = {}
    for position, message in enumerate(request.changes):
        change = _alias_change(f"changes[{position}]", message)
        if change.alias in changes:
            raise InvalidField(f"changes[{position}].alias", f"{change.alias!r} is there twice")
        changes[change.alias] = change
    return SetAliases(model, tuple(changes.values()))


def _alias_change(field: str, message: service.AliasChange) -> AliasChange:
    alias = names.settable_alias(f"{field}.alias", message.alias)
    expected = message.expected_version if message.HasField("expected_version") else None
    for name, number in (("version", message.version), ("expected_version", expected or 0)):
        if number < 0:
            raise InvalidField(
                f"{field}.{name}", f"{number} is not a version number: write 1, 2, 3 …, or 0 for none"
            )
    return AliasChange(alias, message.version, expected)


def parse_set_tags(request: service.SetTagsRequest) -> SetTags:
    """Check the shape of a request to change tags."""
    target = names.target("resource_type", request.resource_type, request.name)
    write = values.tags("set", request.set)
    remove = values.removals("remove", request.remove, write, "tag_key_length")
    _require_change(write, remove)
    return SetTags(target, write, remove)


def parse_set_metrics(request: service.SetMetricsRequest) -> SetMetrics:
    """Check the shape of a request to change metrics."""
    version = names.version("name", request.name)
    write = values.metrics("set", request.set)
    remove = values.removals("remove", request.remove, write, "metric_name_length")
    _require_change(write, remove)
    return SetMetrics(version, write, remove)


def _require_change(write: Mapping[str, object], remove: Sequence[str]) -> None:
    if not write and not remove:
        raise InvalidField("set", "needs at least one entry in 'set' or 'remove'")


def parse_find_uses(request: service.FindArtifactUsesRequest) -> list[str]:
    """Return the digests asked about.

    Raises:
        InvalidField: one is malformed, or there are too many.
    """
    if len(request.digests) > _MAX_USES:
        raise InvalidField("digests", f"has {len(request.digests)}: ask about at most {_MAX_USES} at once")
    return [names.digest(f"digests[{place}]", each) for place, each in enumerate(request.digests)]


def parse_resolve(request: service.ResolveResourceRequest) -> Resolve:
    """Check the shape of a request to find a resource."""
    kind = names.resource_type("type", request.type)
    if bool(request.name) == bool(request.id):
        raise InvalidField("name", "give either the name or the id")
    if request.id:
        return Resolve(kind, None, names.identifier("id", request.id), request.for_use)
    return Resolve(kind, names.target("type", request.type, request.name), "", request.for_use)


def parse_browse(request: Any) -> Browse:
    """Check the size of a page of a list; the rest is read with the fields of the list, see search.py."""
    return Browse(
        size=paging.page_size(request.page_size),
        page_token=request.page_token,
        filter=request.filter,
        order_by=request.order_by,
        show_deleted=request.show_deleted,
    )


def parse_approval_changes(request: service.SetApprovalStatesRequest) -> list[ApprovalChange]:
    """Check the shape of what governance tells."""
    if len(request.changes) > MAX_APPROVAL_CHANGES:
        problem = f"has {len(request.changes)}; {MAX_APPROVAL_CHANGES} are the most at once"
        raise InvalidField("changes", problem)
    found: dict[str, ApprovalChange] = {}
    for position, change in enumerate(request.changes):
        field = f"changes[{position}]"
        version_id = names.identifier(f"{field}.model_version_id", change.model_version_id)
        if version_id in found:
            raise InvalidField(f"{field}.model_version_id", "is there twice")
        if change.state not in _APPROVALS:
            raise InvalidField(f"{field}.state", "is required: NONE, PENDING, APPROVED or REJECTED")
        if change.sequence < 1:
            raise InvalidField(f"{field}.sequence", f"{change.sequence} is not 1 or more")
        found[version_id] = ApprovalChange(version_id, _APPROVALS[change.state], change.sequence)
    return list(found.values())


def parse_artifact_tests(request: service.SetArtifactTestsRequest) -> list[ArtifactTestsChange]:
    """Check the shape of what the artifact service tells."""
    if len(request.changes) > MAX_TESTS_CHANGES:
        problem = f"has {len(request.changes)}; {MAX_TESTS_CHANGES} are the most at once"
        raise InvalidField("changes", problem)
    found: dict[str, ArtifactTestsChange] = {}
    for position, change in enumerate(request.changes):
        field = f"changes[{position}]"
        digest = names.digest(f"{field}.artifact_digest", change.artifact_digest)
        if digest in found:
            raise InvalidField(f"{field}.artifact_digest", "is there twice")
        if change.artifact_tests not in _TESTS:
            raise InvalidField(f"{field}.artifact_tests", "is required: PASSED or FAILED")
        if change.sequence < 1:
            raise InvalidField(f"{field}.sequence", f"{change.sequence} is not 1 or more")
        results = values.struct(f"{field}.test_results", change.test_results)
        limits.check("metadata_bytes", metadata_size(ModelMetadata(test_results=results)))
        tests = ArtifactTests(_TESTS[change.artifact_tests], results)
        found[digest] = ArtifactTestsChange(digest, tests, change.sequence)
    return list(found.values())


def once(request: Any) -> Once:
    """Return what makes a repetition of this create safe: its id, and a fingerprint of everything else in it."""
    values.text("request_id", request.request_id, "request_id_length")
    content = type(request)()
    content.CopyFrom(request)
    content.ClearField("request_id")
    return Once(request.request_id, idempotency.fingerprint(content.SerializeToString(deterministic=True)))
