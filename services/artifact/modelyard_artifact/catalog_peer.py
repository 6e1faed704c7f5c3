"""What the catalog knows, asked over its contract."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.protobuf import json_format, struct_pb2

from modelyard.api.catalog.v1 import catalog_service_pb2, model_pb2
from modelyard.references import parse_version_reference
from modelyard_artifact.described import DatasetUse, Described
from modelyard_artifact.models import ModelRef, VersionRef
from modelyard_kit.access import SYSTEM, Chain, ResourceType
from modelyard_kit.authorization import Missing
from modelyard_kit.errors import NotFound
from modelyard_kit.limits import LIMITS
from modelyard_kit.protos import chain_from_proto, moment, resource_type_to_proto

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelyard_artifact.inspection_models import TestsOutcome
    from modelyard_kit.peers import Peers

_MOST_RESULTS_BYTES = LIMITS["metadata_bytes"].maximum - len('{"test_results":}')


class CatalogPeer:
    """The catalog service as the rules and the access table need it; nothing is remembered here."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def model(self, name: str) -> ModelRef:
        """Finds a model by its full name.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the catalog does not answer.
        """
        link = (await self._resolve(ResourceType.MODEL, name))[0]
        return ModelRef(id=link.id, name=link.name)

    async def chain_of_model(self, model_id: str) -> Chain:
        """Returns a model and its containers by its id.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the catalog does not answer.
        """
        kind = resource_type_to_proto(ResourceType.MODEL)
        request = catalog_service_pb2.ResolveResourceRequest(type=kind, id=model_id)
        response = await self._peers.call(self._peers.catalog.ResolveResource, request)
        return chain_from_proto(response.chain)

    async def version(self, reference: str) -> VersionRef:
        """Finds a version by its reference.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the catalog does not answer.
        """
        request = catalog_service_pb2.GetModelVersionRequest(name=reference)
        response = await self._peers.call(self._peers.catalog.GetModelVersion, request)
        version: model_pb2.ModelVersion = response.model_version
        return VersionRef(
            id=version.id, name=version.name, state=_state(version), digest=version.artifact_digest
        )

    async def describe(self, reference: str) -> Described:
        """All that the catalog knows of a version.

        Raises:
            NotFound: there is none.
            PeerUnavailable: the catalog does not answer.
        """
        request = catalog_service_pb2.GetModelVersionRequest(name=reference)
        response = await self._peers.call(self._peers.catalog.GetModelVersion, request)
        return _described(response.model_version)

    async def used(self, digests: Sequence[str]) -> frozenset[str]:
        """Of at most 1,000 digests those that versions have, deleted ones that are not purged included.

        Raises:
            PeerUnavailable: the catalog does not answer.
        """
        if not digests:
            return frozenset()
        request = catalog_service_pb2.FindArtifactUsesRequest(digests=digests)
        response = await self._peers.call(self._peers.catalog.FindArtifactUses, request)
        return frozenset(response.digests)

    async def set_artifact_tests(self, outcomes: Sequence[TestsOutcome]) -> None:
        """Tells how the tests of at most 100 artifacts ended.

        Raises:
            PeerUnavailable: the catalog does not answer.
        """
        changes = map(_tests_change, outcomes)
        request = catalog_service_pb2.SetArtifactTestsRequest(changes=changes)
        await self._peers.call(self._peers.catalog.SetArtifactTests, request)

    async def model_chain(self, name: str) -> Chain:
        """The model and its containers.

        Raises:
            Missing: there is no such model.
            PeerUnavailable: the catalog does not answer.
        """
        try:
            return await self._resolve(ResourceType.MODEL, name)
        except NotFound as error:
            raise Missing(error, await self._nearest(name)) from error

    async def version_chain(self, reference: str) -> Chain:
        """The version and its containers.

        Raises:
            Missing: there is no such version.
            PeerUnavailable: the catalog does not answer.
        """
        try:
            return await self._resolve(ResourceType.MODEL_VERSION, reference)
        except NotFound as error:
            model = parse_version_reference(reference).model
            try:
                nearest = await self._resolve(ResourceType.MODEL, model)
            except NotFound:
                nearest = await self._nearest(model)
            raise Missing(error, nearest) from error

    async def _nearest(self, model: str) -> Chain:
        """The chain of the schema or catalog in which a missing model would be, or of the system."""
        schema, catalog = model.rpartition(".")[0], model.partition(".")[0]
        for kind, name in ((ResourceType.SCHEMA, schema), (ResourceType.CATALOG, catalog)):
            try:
                return await self._resolve(kind, name)
            except NotFound:
                continue
        return (SYSTEM,)

    async def _resolve(self, kind: ResourceType, name: str) -> Chain:
        request = catalog_service_pb2.ResolveResourceRequest(type=resource_type_to_proto(kind), name=name)
        response = await self._peers.call(self._peers.catalog.ResolveResource, request)
        return chain_from_proto(response.chain)


def _tests_change(outcome: TestsOutcome) -> catalog_service_pb2.ArtifactTestsChange:
    tests = model_pb2.ModelVersion
    ended = tests.ARTIFACT_TESTS_PASSED if outcome.passed else tests.ARTIFACT_TESTS_FAILED
    change = catalog_service_pb2.ArtifactTestsChange(
        artifact_digest=outcome.digest, artifact_tests=ended, sequence=outcome.sequence
    )
    results = json.loads(outcome.results)
    if len(json.dumps(results, ensure_ascii=False, separators=(",", ":")).encode()) > _MOST_RESULTS_BYTES:
        # Texts from the files of the artifact; GetInspection has them whole.
        results = {test: {"success": entry.get("success")} for test, entry in results.items()}
    change.test_results.update(results)
    return change


def _described(version: model_pb2.ModelVersion) -> Described:
    metadata, provenance = version.metadata, version.provenance
    parameters = json_format.MessageToDict(metadata.hyperparameters)
    return Described(
        id=version.id,
        name=version.name,
        number=version.number,
        label=version.label,
        digest=version.artifact_digest,
        state=_state(version),
        description=version.description,
        author=version.author_name,
        create_time=moment(version.create_time),
        use_case=metadata.use_case,
        framework=metadata.framework,
        framework_version=metadata.framework_version,
        algorithm=metadata.algorithm,
        hyperparameters=json.dumps(parameters, sort_keys=True) if parameters else "",
        metrics={name: _plain(value) for name, value in version.metrics.items()},
        tags=dict(version.tags),
        packages=dict(provenance.packages),
        datasets=[
            DatasetUse(each.name, each.version, each.digest, each.role) for each in provenance.datasets
        ],
        git_repository=provenance.git_repository,
        git_commit=provenance.git_commit,
        python_version=provenance.python_version,
    )


def _state(version: model_pb2.ModelVersion) -> str:
    return model_pb2.ModelVersion.State.Name(version.state).removeprefix("STATE_")


def _plain(value: struct_pb2.Value) -> str:
    return json.dumps(json_format.MessageToDict(value), sort_keys=True)
