"""Taking a bundle in: everything in it is checked first, then models, versions, cards and lineage are made under other names.

Each step finds what an earlier import of the same made and goes on after it: a version is known again by the id that it has at its origin,
which its metadata here keeps, and by its artifact.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from modelyard import errors
from modelyard._bundle_file import open_bundle
from modelyard._convert import from_proto
from modelyard._namespace import resource_name
from modelyard._progress import report
from modelyard.api.catalog.v1 import model_pb2
from modelyard.errors import InvalidArgument
from modelyard.types import (
    CustomMetadata,
    ImportedVersion,
    LineageEdge,
    LineageNode,
    MetadataCategory,
    ModelVersion,
)

if TYPE_CHECKING:
    from pathlib import Path

    from modelyard._bundle_file import Bundle
    from modelyard._bundle_verbs import Verbs
    from modelyard._progress import Progress
    from modelyard.auditing import AuditKeys
    from modelyard.bundles import BundledModel, BundledVersion, BundleManifest, VersionDocument

FACTS = "imported_"
"""What the keys of the facts begin with that say where a version came from."""
_MODEL_PARTS = 3


async def opened(path: Path, keys: AuditKeys | None, progress: Progress) -> Bundle:
    """A bundle of which everything was checked; without keys, all but who vouches for it.

    Raises:
        SignatureInvalid: it is not signed by one of the keys.
        ArchiveRefused: the archive is hostile or damaged.
        DigestMismatch: something in it is not as it says.
        InvalidArgument: something in it contradicts itself.
    """
    bundle = await asyncio.to_thread(open_bundle, path)
    if keys is not None:
        bundle.check_signature(keys)
    total = sum(bundle.blobs.values()) if bundle.manifest.embedded else 0
    loop = asyncio.get_running_loop()
    with report("hash", total, 1, progress) as advance:

        def tell(size: int) -> None:
            loop.call_soon_threadsafe(advance, size)

        await asyncio.to_thread(bundle.check_blobs, tell)
        await asyncio.sleep(0)  # what the thread told last
    return bundle


def names_for(manifest: BundleManifest, wanted: str | Mapping[str, str]) -> dict[str, str]:
    """What each model of a bundle is to be called here, by its id.

    Raises:
        InvalidArgument: a name is missing, or is for no model of the bundle, or for two.
    """
    chosen = dict(wanted) if isinstance(wanted, Mapping) else {}
    known = {model.name for model in manifest.models}
    if unknown := set(chosen) - known:
        has = ", ".join(sorted(known))
        raise InvalidArgument(f"names: the bundle has no model {min(unknown)!r}; it has {has}")
    for model in manifest.models:
        if isinstance(wanted, str):
            chosen[model.name] = _name(wanted, model, len(manifest.models))
        if model.name not in chosen:
            raise InvalidArgument(f"names: say what {model.name!r} is to be called here")
        resource_name(chosen[model.name], _MODEL_PARTS, "names")
    if len(set(chosen.values())) < len(chosen):
        raise InvalidArgument("names: two models would be called the same")
    return {model.id: chosen[model.name] for model in manifest.models}


def _name(wanted: str, model: BundledModel, models: int) -> str:
    if wanted.count(".") == 1:
        return f"{wanted}.{model.name.rpartition('.')[2]}"
    if models > 1:
        raise InvalidArgument(
            f"names: the bundle has {models} models; give a schema for them, or a name for each"
        )
    return wanted


class Importer:
    """Makes what a bundle holds.

    Args:
        verbs: The calls that it makes.
        bundle: The bundle, checked.
        names: What its models are to be called, by their ids.
        progress: As for uploads.
    """

    def __init__(self, verbs: Verbs, bundle: Bundle, names: Mapping[str, str], progress: Progress) -> None:
        self._verbs = verbs
        self._bundle = bundle
        self._names = names
        self._progress = progress
        self._made: dict[str, ModelVersion] = {}

    async def run(self, *, aliases: bool) -> tuple[ImportedVersion, ...]:
        """Make everything that is not here, and tell of each version."""
        manifest = self._bundle.manifest
        for model in manifest.models:
            await self._model(model)
        ordered = sorted(manifest.versions, key=lambda each: (self._names[each.model_id], each.number))
        told = [await self._version(manifest.model_of(version), version) for version in ordered]
        await self._lineage()
        for model in manifest.models if aliases else ():
            await self._aliases(model)
        return tuple(told)

    async def _model(self, model: BundledModel) -> None:
        name = self._names[model.id]
        try:
            await self._verbs.models.get(name)
        except errors.NotFound:
            await self._verbs.models.create(name, description=model.description, tags=model.tags)

    async def _version(self, model: BundledModel, version: BundledVersion) -> ImportedVersion:
        document = await asyncio.to_thread(self._bundle.document, version)
        target = self._names[model.id]
        here = await self._known(target, version)
        created = here is None
        if here is None:
            await self._artifact(target, version)
            here = await self._create(target, model, version, document)
        await self._cards(here.name, document)
        self._made[version.id] = here
        return ImportedVersion(f"{model.name}/{version.number}", here.name, created)

    async def _known(self, target: str, version: BundledVersion) -> ModelVersion | None:
        """The version that an earlier import made of this one."""
        same = f"metadata.custom.{FACTS}version_id = '{version.id}'"
        found = await self._verbs.versions.list(target, filter=same, order_by="number").collect()
        return next((each for each in found if each.artifact_digest == version.artifact_digest), None)

    async def _artifact(self, target: str, version: BundledVersion) -> None:
        """Store the files of a version, or find that they are here."""
        if self._bundle.manifest.embedded:
            files = await asyncio.to_thread(self._bundle.local_files, version)
            await self._verbs.store(target, files, self._progress)
            return
        entries = await asyncio.to_thread(self._bundle.files, version)
        upload = await self._verbs.artifacts.begin_upload(target, entries)
        if upload.missing:
            await self._verbs.artifacts.cancel_upload(upload.id)
            raise InvalidArgument(
                f"the bundle holds no blobs, and {len(upload.missing)} of {version.artifact_digest} are not here"
            )
        await self._verbs.artifacts.commit_upload(upload.id)

    async def _create(
        self, target: str, model: BundledModel, version: BundledVersion, document: VersionDocument
    ) -> ModelVersion:
        told = _parsed(document, version)
        facts = _facts(self._bundle, model, version, document)
        kept = [each for each in told.metadata.custom if not each.key.startswith(FACTS)]
        wanted = replace(told, metadata=replace(told.metadata, custom=(*kept, *facts)))
        try:
            return await self._add(target, version, wanted)
        except errors.AlreadyExists:
            if not wanted.label:
                raise
            # The label, or an alias of this name, is taken here: the version goes without.
            return await self._add(target, version, replace(wanted, label=""))

    async def _add(self, target: str, version: BundledVersion, wanted: ModelVersion) -> ModelVersion:
        create = partial(
            self._verbs.versions.create,
            target,
            version.artifact_digest,
            label=wanted.label,
            description=wanted.description,
            runtime=wanted.runtime,
            signature=wanted.signature if wanted.signature.methods else None,
            tags=wanted.tags,
            metrics=wanted.metrics,
            metadata=wanted.metadata,
            provenance=wanted.provenance,
        )
        try:
            made = await create(request_id=_request_id(self._bundle, target, version, wanted.label))
        except errors.NotFound as error:
            if error.resource_type != "model_version":
                raise
        else:
            if made.delete_time is None:
                return made
        # The same request has the same answer for good, and what it made was deleted since.
        return await create()

    async def _cards(self, name: str, document: VersionDocument) -> None:
        """Write the revisions of the card that follow on the one that is here; a card of somebody's own stays."""
        if not document.cards:
            return
        contents = [_card(card) for card in document.cards]
        try:
            newest = (await self._verbs.cards.get(name)).document
        except errors.NotFound:
            begin = 0
        else:
            if newest not in contents:
                return
            begin = len(contents) - contents[::-1].index(newest)
        for content, card in list(zip(contents, document.cards, strict=True))[begin:]:
            await self._verbs.cards.set(name, content, comment=str(card.get("comment", "")))

    async def _lineage(self) -> None:
        """Record what was made from what."""
        edges = [
            LineageEdge(
                source=LineageNode.model_version(self._made[edge.source].name),
                target=LineageNode.model_version(self._made[edge.target].name),
                relation=edge.relation,
            )
            for edge in self._bundle.manifest.lineage
        ]
        for start in range(0, len(edges), 1_000):
            await self._verbs.lineage.record(*edges[start : start + 1_000])

    async def _aliases(self, model: BundledModel) -> None:
        """Point the aliases of a model here at what they point at there."""
        ids = {each.number: each.id for each in self._bundle.manifest.versions if each.model_id == model.id}
        moves = {alias: self._made[ids[number]].number for alias, number in model.aliases.items()}
        if moves:
            await self._verbs.aliases.set(self._names[model.id], moves)


def _parsed(document: VersionDocument, version: BundledVersion) -> ModelVersion:
    try:
        message = json_format.ParseDict(
            dict(document.version), model_pb2.ModelVersion(), ignore_unknown_fields=True
        )
    except json_format.ParseError as error:
        raise InvalidArgument(f"{version.document}: tells of no version: {error}") from error
    return from_proto(ModelVersion, message)


def _card(card: Mapping[str, Any]) -> dict[str, Any]:
    try:
        content = json.loads(card["content"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"the bundle holds a card that is none: {error}") from error
    if not isinstance(content, dict):
        raise InvalidArgument("the bundle holds a card that is none: it is no object")
    return content


def _facts(
    bundle: Bundle, model: BundledModel, version: BundledVersion, document: VersionDocument
) -> tuple[CustomMetadata, ...]:
    """Where a version came from, and what its origin said of it. An approval there is a fact here and no approval."""
    told = {
        "version": (f"{model.name}/{version.number}", "what it is called at its origin"),
        "version_id": (version.id, "its id there"),
        "from": (bundle.signature.installation, "what its origin calls itself"),
        "signer": (bundle.signature.key_id, "key that signed the bundle"),
        "bundle": (bundle.signature.bundle, "digest of the bundle"),
        "approval": (
            str(document.approval.get("state", "")),
            "where it stood there; counts for nothing here",
        ),
    }
    other = MetadataCategory.OTHER
    return tuple(CustomMetadata(f"{FACTS}{key}", value, other, why) for key, (value, why) in told.items())


def _request_id(bundle: Bundle, target: str, version: BundledVersion, label: str) -> str:
    """The same for the same import, so that what was cut off after the version was made makes no second one."""
    text = f"modelyard-import-v1\n{bundle.signature.bundle}\n{target}\n{version.id}\n{label}\n"
    return hashlib.sha256(text.encode()).hexdigest()[:32]
