"""From a trained model to a version in the catalog."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from modelyard import _upload, _warm_up, flavors
from modelyard._catalog import AsyncModels
from modelyard._convert import json_values
from modelyard._labels import AsyncAliases
from modelyard._lineage import check_datasets
from modelyard._manifest import scan
from modelyard._metadata import complete, size
from modelyard._namespace import resource_name
from modelyard._provenance import capture
from modelyard._versions import AsyncVersions
from modelyard.errors import AlreadyExists, InvalidArgument, NotFound
from modelyard.types import ModelMetadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelyard._artifacts import AsyncArtifacts
    from modelyard._connection import Connection
    from modelyard._manifest import LocalFile
    from modelyard._progress import Progress
    from modelyard.types import Artifact, Dataset, ModelVersion, Provenance, Signature


async def log_model(
    connection: Connection,
    artifacts: AsyncArtifacts,
    model: Any,
    name: str,
    *,
    runtime: str | None,
    example: Any,
    keep_example: bool,
    signature: Signature | None,
    requirements: Sequence[str] | Literal["installed"],
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
        provenance = await asyncio.to_thread(capture, prepared.packages)
        lines = _installed(provenance) if requirements == "installed" else requirements
        path = _with_requirements(prepared.path, Path(folder), lines) if lines else prepared.path
        if keep_example and example is not None:
            path = await asyncio.to_thread(_warm_up.record, path, Path(folder), prepared.signature, example)
        files = await scan(path, progress)
        artifact = await _store(connection, artifacts, name, files, create=create, progress=progress)
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


def _installed(provenance: Provenance) -> list[str]:
    """The packages that a model needs, as they are installed here; Modelyard's own comes with every replica."""
    packages = sorted(provenance.packages.items())
    return [f"{name}=={version}" for name, version in packages if name != "modelyard"]


def _with_requirements(path: Path, folder: Path, lines: Sequence[str]) -> Path:
    """Write requirements.txt beside a model that was saved into `folder`, and return the folder."""
    if isinstance(lines, str) or any("\n" in line for line in lines):
        raise InvalidArgument('requirements: give a list of lines, or "installed"')
    if path not in (folder, *folder.iterdir()):
        raise InvalidArgument(
            f"requirements: {path} is logged as it is; write a requirements.txt into the folder, or log a folder that has one"
        )
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


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
