"""From a trained model to a version in the catalog."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard import _upload, flavors
from modelyard._catalog import AsyncModels
from modelyard._convert import json_values
from modelyard._labels import AsyncAliases
from modelyard._lineage import check_datasets
from modelyard._manifest import scan
from modelyard._metadata import complete, size
from modelyard._namespace import resource_name
from modelyard._provenance import capture
from modelyard._versions import AsyncVersions
from modelyard.errors import AlreadyExists, NotFound
from modelyard.types import ModelMetadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelyard._artifacts import AsyncArtifacts
    from modelyard._connection import Connection
    from modelyard._manifest import LocalFile
    from modelyard._progress import Progress
    from modelyard.types import Artifact, Dataset, ModelVersion, Signature


async def log_model(
    connection: Connection,
    artifacts: AsyncArtifacts,
    model: Any,
    name: str,
    *,
    runtime: str | None,
    example: Any,
    signature: Signature | None,
    label: str,
    description: str,
    tags: Mapping[str, str] | None,
    metrics: Mapping[str, Any] | None,
    metadata: ModelMetadata | None,
    inputs: Sequence[Dataset],
    aliases: Sequence[str],
    create: bool,
    progress: Progress,
) -> ModelVersion:
    """Save, upload and register a model; see `Client.log_model`."""
    resource_name(name, 3)
    # What cannot be stored is found before the upload.
    json_values(metrics or {}, "metrics")
    datasets = check_datasets(inputs, "inputs")
    size(metadata or ModelMetadata())
    with tempfile.TemporaryDirectory(prefix="modelyard-") as folder:
        prepared = await asyncio.to_thread(
            flavors.prepare, model, Path(folder), runtime=runtime, example=example, signature=signature
        )
        files = await scan(prepared.path, progress)
        artifact = await _store(connection, artifacts, name, files, create=create, progress=progress)
    provenance = await asyncio.to_thread(capture, prepared.packages)
    version = await AsyncVersions(connection).create(
        name,
        artifact.digest,
        label=label,
        description=description,
        runtime=prepared.runtime,
        signature=prepared.signature,
        tags=tags,
        metrics=metrics,
        metadata=complete(metadata, prepared.metadata),
        provenance=replace(provenance, datasets=datasets),
    )
    if aliases:
        await AsyncAliases(connection).set(name, dict.fromkeys(aliases, version.number))
        version = await AsyncVersions(connection).get(version.name)
    return version


async def _store(
    connection: Connection,
    artifacts: AsyncArtifacts,
    name: str,
    files: Sequence[LocalFile],
    *,
    create: bool,
    progress: Progress,
) -> Artifact:
    """Upload for a model that may have to be registered first."""
    try:
        return await _upload.store(artifacts, connection, name, files, progress)
    except NotFound as error:
        if not create or error.resource_type.lower() != "model":
            raise
    with contextlib.suppress(AlreadyExists):  # somebody was faster; that is what we wanted
        await AsyncModels(connection).create(name)
    return await _upload.store(artifacts, connection, name, files, progress)
