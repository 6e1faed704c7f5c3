"""Writing a bundle: documents as governance tells them, a manifest that it signs, and the blobs."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING

from modelyard import bundles
from modelyard._bundle_file import MANIFEST, SIGNATURE, BundleWriter
from modelyard._download import manifest as artifact_manifest
from modelyard.bundles import BundledEdge, BundledModel, BundledVersion, BundleManifest
from modelyard.errors import DigestMismatch, InvalidArgument
from modelyard.references import parse_version_reference
from modelyard.types import BundleSummary, LineageKind, ResourceType, VersionState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from modelyard._bundle_verbs import Verbs
    from modelyard._progress import Progress
    from modelyard.types import FileEntry, Model, ModelVersion, Share

_READY = "state = 'READY'"


async def members_of(verbs: Verbs, share: Share) -> list[str]:
    """The names of the models of a share, as far as the caller sees them."""
    found = []
    for member in share.members:
        if member.type is ResourceType.SCHEMA:
            found += [model.name async for model in verbs.models.list(member.name) if model.latest_version]
        else:
            found.append(member.name)
    return found


async def choose(verbs: Verbs, references: Iterable[str]) -> list[tuple[Model, list[ModelVersion]]]:
    """Each model with the versions of it that are wanted, in the order of names and numbers."""
    wanted: dict[str, set[str] | None] = {}
    for reference in references:
        parsed = parse_version_reference(reference)
        whole = parsed.number is None and parsed.alias is None
        chosen = wanted.setdefault(parsed.model, set())
        if whole:
            wanted[parsed.model] = None
        elif chosen is not None:
            chosen.add((await verbs.versions.get(reference)).name)
    if not wanted:
        raise InvalidArgument("references: name at least one model or version")
    return [
        (await verbs.models.get(name), await _versions(verbs, name, wanted[name])) for name in sorted(wanted)
    ]


async def _versions(verbs: Verbs, model: str, names: set[str] | None) -> list[ModelVersion]:
    if names is None:
        found = await verbs.versions.list(model, filter=_READY, order_by="number").collect()
        if not found:
            raise InvalidArgument(f"{model} has no version that is READY")
        return found
    versions = [await verbs.versions.get(name) for name in names]
    for version in versions:
        if version.state is not VersionState.READY:
            raise InvalidArgument(f"{version.name} is {version.state}; only READY versions can be exported")
    return sorted(versions, key=lambda version: version.number)


async def export(
    verbs: Verbs,
    chosen: Sequence[tuple[Model, Sequence[ModelVersion]]],
    path: Path,
    *,
    share: str,
    blobs: bool,
    progress: Progress,
) -> BundleSummary:
    """Write a bundle of these versions; see `AsyncBundles.export`."""
    with BundleWriter(path) as writer:
        documents: dict[str, FileEntry] = {}
        sealed: list[BundledVersion] = []
        artifacts: dict[str, tuple[str, Sequence[FileEntry]]] = {}
        for model, versions in chosen:
            for version in versions:
                told, files = await _describe(verbs, writer, model, version, documents)
                sealed.append(told)
                artifacts.setdefault(told.artifact_digest, (version.name, files))
        manifest = BundleManifest(
            embedded=blobs,
            models=tuple(_model(model, versions) for model, versions in chosen),
            versions=tuple(sealed),
            lineage=await _lineage(verbs, [version for _, versions in chosen for version in versions]),
            documents=tuple(documents.values()),
        )
        text = manifest.to_json()
        statement, signature = await verbs.sign(text, share=share)
        await asyncio.to_thread(writer.add, MANIFEST, [text.encode()])
        envelope = bundles.line({"statement": statement, "signature": signature})
        await asyncio.to_thread(writer.add, SIGNATURE, [envelope.encode()])
        for digest, (reference, files) in artifacts.items() if blobs else ():
            await _add_blobs(verbs, writer, path, (digest, reference, files), progress)
        await asyncio.to_thread(writer.publish)
        return BundleSummary(bundles.bundle_digest(text), len(sealed), writer.blob_bytes)


async def _describe(
    verbs: Verbs,
    writer: BundleWriter,
    model: Model,
    version: ModelVersion,
    documents: dict[str, FileEntry],
) -> tuple[BundledVersion, Sequence[FileEntry]]:
    """Add the document of a version and the list of its files, and return what the manifest says of it."""
    lines, seal = await verbs.describe(version.name)
    told = BundledVersion(version.id, model.id, version.number, version.artifact_digest, seal)
    document = await asyncio.to_thread(writer.add, told.document, _encoded(lines))
    documents[document.path] = document
    digest, files = await artifact_manifest(verbs.artifacts, version.name)
    if digest != version.artifact_digest:
        raise DigestMismatch(f"{version.name} has the artifact {digest}, not {version.artifact_digest}")
    if told.artifact not in documents:
        content = bundles.artifact_to_json(files).encode()
        documents[told.artifact] = await asyncio.to_thread(writer.add, told.artifact, [content])
    return told, files


def _encoded(lines: Iterable[str]) -> Iterator[bytes]:
    return (f"{text}\n".encode() for text in lines)


def _model(model: Model, versions: Sequence[ModelVersion]) -> BundledModel:
    numbers = {version.number for version in versions}
    aliases = {alias: number for alias, number in model.aliases.items() if number in numbers}
    return BundledModel(model.id, model.name, model.description, dict(model.tags), aliases)


async def _lineage(verbs: Verbs, versions: Sequence[ModelVersion]) -> tuple[BundledEdge, ...]:
    """Which of the versions were made from which others of them; nothing else is told."""
    if len(versions) < 2:
        return ()
    ids: Mapping[str, str] = {version.id: version.name for version in versions}
    edges = set()
    for version in versions:
        found = await verbs.lineage.upstream(version.name, depth=1)
        for edge in found.edges:
            inside = edge.source.kind is LineageKind.MODEL_VERSION and edge.source.id in ids
            if inside and edge.target.id == version.id:
                edges.add((edge.source.id, edge.target.id, edge.relation))
    return tuple(BundledEdge(*edge) for edge in sorted(edges))


async def _add_blobs(
    verbs: Verbs,
    writer: BundleWriter,
    path: Path,
    artifact: tuple[str, str, Sequence[FileEntry]],
    progress: Progress,
) -> None:
    """Fetch the files of an artifact beside the bundle, as a download that continues when it was interrupted, and add them."""
    digest, reference, files = artifact
    folder = path.with_name(f".{path.name}.{digest.removeprefix('sha256:')[:16]}")
    try:
        await verbs.artifacts.download(reference, folder, overwrite=True, progress=progress)
        await asyncio.to_thread(writer.add_blobs, folder, files)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
