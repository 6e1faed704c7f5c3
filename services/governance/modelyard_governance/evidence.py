"""The facts about a version, asked of the services that keep them, with this service's own token."""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf import json_format

from modelyard.api.artifact.v1 import artifact_pb2 as artifact
from modelyard.api.artifact.v1 import artifact_service_pb2 as artifact_service
from modelyard.api.catalog.v1 import catalog_service_pb2 as catalog
from modelyard.api.catalog.v1 import lineage_pb2 as lineage
from modelyard.api.catalog.v1.model_pb2 import ModelVersion
from modelyard_governance.conditions import LIST_LENGTH
from modelyard_governance.gate_models import Facts
from modelyard_governance.models import Version
from modelyard_kit.errors import NotFound
from modelyard_kit.peers import Peers


class PeerEvidence:
    """`Evidence` from the catalog and the artifact service."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def facts(self, version: Version) -> Facts:
        """Return the facts; see `gate_models.Evidence`."""
        request = catalog.GetModelVersionRequest(name=version.chain[0].name)
        answer = await self._peers.call(self._peers.catalog.GetModelVersion, request)
        found: ModelVersion = answer.model_version
        if found.id != version.chain[0].id:  # renamed or made again since: what is there is another one
            raise NotFound("model_version", version.chain[0].name)
        inspected, signatures, sources = await asyncio.gather(
            self._inspection(found), self._signatures(found), self._lineage(found)
        )
        return {**_version(found), **inspected, "signatures": signatures, "lineage": sources}

    async def _inspection(self, version: ModelVersion) -> dict[str, Any]:
        request = artifact_service.GetInspectionRequest(digest=version.artifact_digest, model=version.model)
        try:
            answer = await self._peers.call(self._peers.artifact.GetInspection, request)
        except NotFound:
            return _inspection(artifact.Inspection())
        return _inspection(answer.inspection)

    async def _signatures(self, version: ModelVersion) -> list[dict[str, Any]]:
        request = artifact_service.CheckSignaturesRequest(digest=version.artifact_digest, model=version.model)
        try:
            answer = await self._peers.call(self._peers.artifact.CheckSignatures, request)
        except NotFound:
            return []
        return [
            {
                "signer": signature.signer,
                "trusted": signature.trust == artifact.Signature.TRUST_TRUSTED,
                "trust_root": signature.trust_root,
            }
            for signature in answer.signatures[:LIST_LENGTH]
        ]

    async def _lineage(self, version: ModelVersion) -> dict[str, Any]:
        node = lineage.LineageNode(kind=lineage.LineageNode.KIND_MODEL_VERSION, name=version.name)
        request = catalog.QueryLineageRequest(
            node=node, direction=catalog.LINEAGE_DIRECTION_UPSTREAM, depth=1, page_size=LIST_LENGTH
        )
        answer = await self._peers.call(self._peers.catalog.QueryLineage, request)
        kinds = lineage.LineageNode
        named: dict[int, list[str]] = {
            kinds.KIND_DATASET: [],
            kinds.KIND_RUN: [],
            kinds.KIND_MODEL_VERSION: [],
        }
        for edge in answer.edges:
            if edge.source.kind in named and edge.source.name:
                named[edge.source.kind].append(edge.source.name)
        return {
            "present": bool(answer.edges),
            "datasets": named[kinds.KIND_DATASET],
            "runs": named[kinds.KIND_RUN],
            "versions": named[kinds.KIND_MODEL_VERSION],
        }


def _version(version: ModelVersion) -> dict[str, Any]:
    return {
        "version": {
            "name": version.name,
            "number": version.number,
            "label": version.label,
            "runtime": version.runtime,
            "description": version.description,
            "author": version.author_name,
            "aliases": list(version.aliases[:LIST_LENGTH]),
            "artifact_digest": version.artifact_digest,
        },
        "metrics": {
            name: _bounded(json_format.MessageToDict(value)) for name, value in version.metrics.items()
        },
        "tags": dict(version.tags),
    }


def _inspection(inspection: artifact.Inspection) -> dict[str, Any]:
    outcomes = {test.id: test.result for test in inspection.tests}
    failed = [name for name, result in outcomes.items() if result == artifact.IntrospectionTest.RESULT_FAILED]
    done = inspection.state == artifact.Inspection.STATE_DONE
    return {
        "tests": {
            "run": done and bool(outcomes),
            "passed": done and bool(outcomes) and not failed,
            "failed": failed[:LIST_LENGTH],
        },
        "scan": {
            "done": done,
            "clean": done and inspection.scan == artifact.Inspection.SCAN_CLEAN,
            "findings": len(inspection.findings),
        },
    }


def _bounded(value: Any) -> Any:
    """Return a metric with every list in it cut to a length that bounds what expressions can do with it."""
    if isinstance(value, list):
        return [_bounded(item) for item in value[:LIST_LENGTH]]
    if isinstance(value, dict):
        return {key: _bounded(item) for key, item in list(value.items())[:LIST_LENGTH]}
    return value
