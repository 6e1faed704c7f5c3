"""Versions of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelyard._connection import new_request_id
from modelyard._convert import from_proto, json_values, rows, to_proto
from modelyard._namespace import Namespace, resource_name, update_mask, version_reference
from modelyard._pager import AsyncPager
from modelyard.api.catalog.v1 import catalog_service_pb2 as pb
from modelyard.api.catalog.v1 import metadata_pb2, model_pb2, signature_pb2
from modelyard.types import (
    Dataset,
    ModelMetadata,
    ModelVersion,
    Provenance,
    Resource,
    ResourceType,
    Signature,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class AsyncVersions(Namespace):
    """`client.versions`: versions of models, `prod.ml_team.iris/3` or `prod.ml_team.iris@champion`."""

    async def create(
        self,
        model: str,
        artifact_digest: str = "",
        *,
        label: str = "",
        description: str = "",
        runtime: str = "",
        signature: Signature | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Mapping[str, Any] | None = None,
        metadata: ModelMetadata | None = None,
        provenance: Provenance | None = None,
        request_id: str = "",
    ) -> ModelVersion:
        """Add a version: READY with the digest of a committed artifact, else PENDING until `finalize`.

        Args:
            model: Full name of the model.
            artifact_digest: Digest of an artifact committed for this model.
            label: Second name of the version, unique within the model: `1.4.0`.
            description: Free text.
            runtime: Runtime that loads it: `sklearn`, `onnx`, `xgboost` … (docs/runtimes.md).
            signature: What it takes and gives.
            tags: Tags of the version.
            metrics: Any JSON values.
            metadata: What it is for and how it was made.
            provenance: Where it came from.
            request_id: Makes a repetition safe.
        """
        request = pb.CreateModelVersionRequest(
            model=resource_name(model, 3, "model"),
            artifact_digest=artifact_digest,
            description=description,
            runtime=runtime,
            signature=to_proto(signature_pb2.Signature, signature) if signature else None,
            tags=tags,
            metrics=json_values(metrics or {}, "metrics"),
            provenance=to_proto(model_pb2.Provenance, provenance) if provenance else None,
            request_id=request_id or new_request_id(),
            label=label,
            metadata=to_proto(metadata_pb2.ModelMetadata, metadata) if metadata else None,
        )
        answer = await self._connection.call(self._connection.catalog.CreateModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    async def finalize(self, reference: str, artifact_digest: str) -> ModelVersion:
        """Give a PENDING version its artifact and make it READY."""
        request = pb.FinalizeModelVersionRequest(
            name=version_reference(reference), artifact_digest=artifact_digest
        )
        answer = await self._connection.call(self._connection.catalog.FinalizeModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    async def fail(self, reference: str, message: str) -> ModelVersion:
        """Give up a PENDING version; `message` says why."""
        request = pb.FailModelVersionRequest(name=version_reference(reference), message=message)
        answer = await self._connection.call(self._connection.catalog.FailModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    async def get(self, reference: str) -> ModelVersion:
        """Read the version a reference names; of an OCI model artifact with the results of its tests in the metadata."""
        request = pb.GetModelVersionRequest(name=version_reference(reference))
        answer = await self._connection.call(self._connection.catalog.GetModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    def list(
        self,
        model: str = "",
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        show_deleted: bool = False,
        model_id: str = "",
        page_size: int = 0,
    ) -> AsyncPager[ModelVersion]:
        """Walk through the versions of a model.

        Args:
            model: Full name of the model.
            filter: Which ones, `"metrics.accuracy > 0.9 AND state = 'READY'"`; see docs/filters.md.
            order_by: Order, `"metrics.accuracy desc"`; by default the newest first.
            show_deleted: Whether to include deleted ones that can still be undeleted.
            model_id: Id of the model, instead of its name. It may be deleted, or inside something deleted: then you see what
                comes back with it, and with `show_deleted` also what was deleted before it.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[ModelVersion], str]:
            request = pb.ListModelVersionsRequest(
                model=model,
                model_id=model_id,
                page_size=page_size,
                page_token=token,
                filter=filter,
                order_by=order_by,
                show_deleted=show_deleted,
            )
            answer = await self._connection.call(self._connection.catalog.ListModelVersions, request)
            return rows(ModelVersion, answer.model_versions), answer.next_page_token

        return AsyncPager(fetch)

    async def update(
        self,
        reference: str,
        *,
        description: str | None = None,
        label: str | None = None,
        metadata: ModelMetadata | None = None,
        datasets: Sequence[Dataset] | None = None,
        signature: Signature | None = None,
        etag: str = "",
    ) -> ModelVersion:
        """Change what is given; with `etag` only if nobody changed it since. The content of a version never changes.

        Args:
            reference: Version reference with a number.
            description: Free text.
            label: Second name of the version; empty takes it away.
            metadata: All metadata, in the place of what is there.
            datasets: All data sets it was made from, in the place of what is there.
            signature: What it takes and gives; only while the version is PENDING.
            etag: Etag that the version must have.

        Raises:
            AlreadyExists: another version of the model has this label, or an alias has this name.
            EtagMismatch: somebody changed it.
        """
        given = {
            "description": description,
            "label": label,
            "metadata": metadata,
            "provenance.datasets": datasets,
            "signature": signature,
        }
        wanted = model_pb2.ModelVersion(
            description=description or "",
            label=label or "",
            etag=etag,
            metadata=to_proto(metadata_pb2.ModelMetadata, metadata) if metadata else None,
            signature=to_proto(signature_pb2.Signature, signature) if signature else None,
            provenance=to_proto(model_pb2.Provenance, Provenance(datasets=tuple(datasets or ()))),
        )
        request = pb.UpdateModelVersionRequest(
            name=version_reference(reference), model_version=wanted, update_mask=update_mask(given)
        )
        answer = await self._connection.call(self._connection.catalog.UpdateModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    async def copy(self, source: str, model: str, *, label: str = "", request_id: str = "") -> ModelVersion:
        """Add a version with the same artifact to another model; no byte is copied.

        Args:
            source: Version reference.
            model: Full name of the model that gets the new version.
            label: Label of the new version.
            request_id: Makes a repetition safe.
        """
        request = pb.CopyModelVersionRequest(
            source=version_reference(source, "source"),
            model=resource_name(model, 3, "model"),
            label=label,
            request_id=request_id or new_request_id(),
        )
        answer = await self._connection.call(self._connection.catalog.CopyModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    async def delete(self, reference: str, *, force: bool = False, etag: str = "") -> ModelVersion:
        """Delete a version, until its `purge_time` to be brought back with `undelete`.

        Args:
            reference: Version reference with a number, which is never given again.
            force: Delete the aliases that point at it too.
            etag: Delete it only if nobody changed it since.

        Raises:
            ResourceInUse: it has aliases and `force` was not given, or it is deployed.
        """
        request = pb.DeleteModelVersionRequest(name=version_reference(reference), etag=etag, force=force)
        answer = await self._connection.call(self._connection.catalog.DeleteModelVersion, request)
        return from_proto(ModelVersion, answer.model_version)

    async def undelete(self, id: str) -> Resource:  # noqa: A002  (as in the contract)
        """Bring a deleted version back, by its id, with the aliases that went with it.

        Raises:
            AlreadyExists: its label was taken since.
            InvalidState: its model is deleted.
        """
        return await self._undelete(ResourceType.MODEL_VERSION, id)
