"""The use cases of bundles: a version described for one, and a bundle signed.

What is told of a version is written here and sealed, so that nobody on the way to the signature can put other words into it. People are
told of by their ids alone, and entries of the audit chain by their place in it and their hash: who was given an export of the
chain, too, can look them up there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from modelyard import bundles as formats
from modelyard.bundles import BundledModel, BundledVersion, BundleManifest, BundleSignature
from modelyard.errors import InvalidArgument
from modelyard_governance.approvals import Approvals
from modelyard_governance.audit_key import AuditKey
from modelyard_governance.canonical import canonical_json
from modelyard_governance.cards import store as cards
from modelyard_governance.cards.content import dump
from modelyard_governance.models import Approval, Directory, Entry, Version
from modelyard_governance.shares import store
from modelyard_governance.shares.models import Origin, Share, SignBundle
from modelyard_governance.shares.rules import may_export
from modelyard_kit import limits
from modelyard_kit.access import Chain, Link, Privilege, ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidField, InvalidState
from modelyard_kit.grants import Grants
from modelyard_kit.outbox import Event, append

READY = "READY"
AUDIT_BATCH = 500


class KnowsOrigin(Protocol):
    """Tells what the catalog knows of a version."""

    async def of(self, version: Version) -> Origin:
        """Return what may be told elsewhere.

        Raises:
            NotFound: it is gone.
            PeerUnavailable: the catalog does not answer.
        """


@dataclass(frozen=True)
class Part:
    """Some lines of the document of a version; the last part has the seal."""

    lines: tuple[str, ...]
    seal: str = ""


class Bundles:
    """Describes versions and signs bundles.

    Args:
        database: with shares, cards, approvals and the audit chain.
        directory: finds models and versions.
        origin: knows versions.
        approvals: knows where they stand.
        grants: who may do what.
        key: signs.
        installation: what this installation calls itself.
        clock: tells the time.
    """

    def __init__(
        self,
        *,
        database: Database,
        directory: Directory,
        origin: KnowsOrigin,
        approvals: Approvals,
        grants: Grants,
        key: AuditKey,
        installation: str,
        clock: Clock,
    ) -> None:
        self._database = database
        self._directory = directory
        self._origin = origin
        self._approvals = approvals
        self._grants = grants
        self._key = key
        self._installation = installation
        self._clock = clock

    async def describe(self, reference: str) -> AsyncIterator[Part]:
        """Yield the document of a READY version in parts.

        Raises:
            NotFound: there is no such version.
            InvalidState: it is not READY.
            PeerUnavailable: the catalog does not answer.
        """
        version = await self._directory.version(reference)
        link, model = version.chain[:2]
        if version.state != READY:
            raise InvalidState("model_version", link.name, state=version.state, wanted=READY)
        origin = await self._origin.of(version)
        _, approval = await self._approvals.standing_of(version)
        digest = hashlib.sha256()
        first = [_line("version", origin.document), _line("approval", _approval(approval))]
        yield _part(first, digest)
        async for lines in self._cards(link):
            yield _part(lines, digest)
        async for lines in self._entries(link, model):
            yield _part(lines, digest)
        told = BundledVersion(link.id, model.id, origin.number, origin.artifact_digest, "")
        yield Part((), self._seal(told, digest.hexdigest()))

    async def _cards(self, version: Link) -> AsyncIterator[list[str]]:
        """Yield each revision of the card, the oldest first, a few at a time."""
        newest = await self._database.read(lambda connection: cards.get(connection, version.id, version.name))
        for revision in range(1, newest.revision + 1 if newest else 1):
            card = await self._database.read(
                lambda connection, revision=revision: cards.get(connection, version.id, "", revision)  # type: ignore[misc]
            )
            if card is not None:
                # As text: a card may hold numbers that canonical JSON has no form for.
                told = {"revision": revision, "content": dump(card.content), "comment": card.comment}
                told |= {"author_id": card.author_id, "create_time": _time(card.create_time)}
                yield [_line("card", told)]

    async def _entries(self, version: Link, model: Link) -> AsyncIterator[list[str]]:
        """Yield the entries of the audit chain about a version, that happened to it or to its model."""
        after = 0
        while True:
            found = await self._database.read(
                lambda connection, after=after: store.entries_of(  # type: ignore[misc]
                    connection, version.id, (version.id, model.id), after=after, limit=AUDIT_BATCH
                )
            )
            if not found:
                return
            yield [_line("audit", _entry(entry)) for entry in found]
            after = found[-1].sequence

    async def sign(self, call: Call, command: SignBundle) -> tuple[str, str]:
        """Return what is signed of a bundle, and the signature, after noting its export for each model.

        Raises:
            InvalidField: the manifest is none, or says something else than this service told.
            PermissionDenied: the caller may not export one of the models.
            LimitExceeded: the manifest is too large.
            PeerUnavailable: the catalog does not answer.
        """
        limits.check("bundle_manifest_bytes", len(command.manifest.encode()))
        try:
            manifest = formats.parse_manifest(command.manifest)
        except InvalidArgument as error:
            raise InvalidField("manifest", str(error)) from error
        share = await self._usable(call, command.share)
        models = [(model, await self._exportable(call, model, share)) for model in manifest.models]
        await asyncio.to_thread(self._check_seals, manifest)
        digest = formats.bundle_digest(command.manifest)
        events = [_event(link, manifest, model, digest, share, call) for model, link in models]

        async def note(connection: Any) -> None:
            for event in events:
                await append(connection, event)

        await self._database.in_tx(note)
        signature = BundleSignature(digest, self._installation, self._clock(), self._key.key_id)
        statement = formats.signed_statement(signature)
        return statement, self._key.sign_content(statement.encode())

    async def _usable(self, call: Call, name: str) -> Share | None:
        """Return the share, if there is one that the caller may export; which of the two it is not, nobody is told."""
        if not name:
            return None
        share = await self._database.read(lambda connection: store.named(connection, name))
        return share if share is not None and may_export(self._grants, call, share) else None

    async def _exportable(self, call: Call, model: BundledModel, share: Share | None) -> Link:
        """Return the model, if the caller may export it."""
        chain = await self._directory.chain_or_phantom(ResourceType.MODEL, model.name)
        for privilege in _needed(chain, share):
            self._grants.require(call.principal, privilege, chain)
        if chain[0].id != model.id:
            raise InvalidField(
                "manifest", f"models: {model.name!r} is not, or is no longer, the model {model.id}"
            )
        return chain[0]

    def _check_seals(self, manifest: BundleManifest) -> None:
        digests = {file.path: file.sha256 for file in manifest.documents}
        for version in manifest.versions:
            what = f"versions: the seal of {version.id}"
            key_id, _, signature = version.seal.partition(".")
            signed = formats.sealed_statement(version, digests[version.document], key_id)
            if problem := self._key.refuse(what, key_id, signature, signed):
                raise InvalidField("manifest", f"{problem}; DescribeVersionForExport gives seal and document")

    def _seal(self, version: BundledVersion, document_sha256: str) -> str:
        signed = formats.sealed_statement(version, document_sha256, self._key.key_id)
        return f"{self._key.key_id}.{self._key.sign_content(signed)}"


def _needed(model: Chain, share: Share | None) -> tuple[Privilege, ...]:
    read = (Privilege.READ_METADATA, Privilege.READ_ARTIFACT)
    return read if share is not None and share.holds(model) else (*read, Privilege.MANAGE)


def _part(lines: Iterable[str], digest: Any) -> Part:
    part = Part(tuple(lines))
    for text in part.lines:
        digest.update(f"{text}\n".encode())
    return part


def _line(kind: str, told: Mapping[str, Any]) -> str:
    return canonical_json({"kind": kind, **told})


def _approval(approval: Approval) -> dict[str, Any]:
    reviews = [
        {
            "reviewer_id": review.reviewer_id,
            "decision": str(review.verdict),
            "comment": review.comment,
            "create_time": _time(review.create_time),
        }
        for review in approval.reviews
    ]
    counts = {"approvals": approval.approvals, "required_approvals": approval.required_approvals}
    return {"state": str(approval.state), **counts, "reviews": reviews}


def _entry(entry: Entry) -> dict[str, Any]:
    event = json.loads(entry.canonical_event)
    return {
        "sequence": entry.sequence,
        "event_id": entry.event_id,
        "type": event["type"],
        "time": event["time"],
        "resource_id": entry.resource_id,
        "actor_id": event.get("actorId", ""),
        "previous_hash": entry.previous_hash.hex(),
        "hash": entry.hash.hex(),
    }


def _time(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else ""


def _event(
    link: Link, manifest: BundleManifest, model: BundledModel, digest: str, share: Share | None, call: Call
) -> Event:
    numbers = sorted(version.number for version in manifest.versions if version.model_id == model.id)
    data = {
        "bundle": digest,
        "versions": numbers,
        "with_blobs": manifest.embedded,
        "share": share.name if share else "",
        "recipient": share.recipient if share else "",
    }
    return Event("governance.bundle.signed", link, call.principal, call.request_id, data)
