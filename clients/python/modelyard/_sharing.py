"""Shares and bundles: what leaves an installation, and what comes into one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from modelyard import _bundle_export, _bundle_import
from modelyard._bundle_verbs import Verbs
from modelyard._connection import new_request_id
from modelyard._convert import from_proto, rows
from modelyard._namespace import Namespace, resource_type_number, update_mask
from modelyard._pager import AsyncPager
from modelyard.api.common.v1 import resource_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1 import share_pb2
from modelyard.auditing import AuditKeys
from modelyard.errors import ConfigurationError, InvalidArgument
from modelyard.types import ResourceType, Share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelyard._bundle_file import Bundle
    from modelyard._connection import Connection
    from modelyard._progress import Progress
    from modelyard.types import BundleSummary, ImportedVersion

_SCHEMA_DOTS = 1


class AsyncShares(Namespace):
    """`client.shares`: what may leave the installation as bundles, and who may export it."""

    async def create(
        self,
        name: str,
        members: Sequence[str],
        *,
        recipient: str = "",
        exporters: Sequence[str] = (),
        description: str = "",
        request_id: str = "",
    ) -> Share:
        """Name what may leave the installation.

        Args:
            name: What to call it.
            members: Full names of models and schemas; a schema stands for all models in it, now and later.
            recipient: Whom it is for.
            exporters: Principals and groups that may export it. They need READ_METADATA and READ_ARTIFACT on the models, too.
            description: Free text.
            request_id: Makes a repetition safe.
        """
        share = share_pb2.Share(
            name=name,
            members=_members(members),
            recipient=recipient,
            exporters=exporters,
            description=description,
        )
        request = pb.CreateShareRequest(share=share, request_id=request_id or new_request_id())
        answer = await self._connection.call(self._connection.governance.CreateShare, request)
        return from_proto(Share, answer.share)

    async def get(self, name: str) -> Share:
        """Read a share; its members have the names that they have now."""
        request = pb.GetShareRequest(name=name)
        answer = await self._connection.call(self._connection.governance.GetShare, request)
        return from_proto(Share, answer.share)

    def list(
        self,
        *,
        filter: str = "",  # noqa: A002  (the name in the contract)
        order_by: str = "",
        page_size: int = 0,
    ) -> AsyncPager[Share]:
        """Walk through shares.

        Args:
            filter: Which ones, `"recipient = 'Acme'"`; see docs/filters.md.
            order_by: Order, `"create_time desc"`; by default by name.
            page_size: Rows asked for at once.
        """

        async def fetch(token: str) -> tuple[Sequence[Share], str]:
            request = pb.ListSharesRequest(
                page_size=page_size, page_token=token, filter=filter, order_by=order_by
            )
            answer = await self._connection.call(self._connection.governance.ListShares, request)
            return rows(Share, answer.shares), answer.next_page_token

        return AsyncPager(fetch)

    async def update(
        self,
        name: str,
        *,
        members: Sequence[str] | None = None,
        recipient: str | None = None,
        exporters: Sequence[str] | None = None,
        description: str | None = None,
    ) -> Share:
        """Change what is given; lists are replaced as a whole."""
        given = {
            "members": members,
            "recipient": recipient,
            "exporters": exporters,
            "description": description,
        }
        share = share_pb2.Share(
            members=_members(members or ()),
            recipient=recipient or "",
            exporters=exporters or (),
            description=description or "",
        )
        request = pb.UpdateShareRequest(name=name, share=share, update_mask=update_mask(given))
        answer = await self._connection.call(self._connection.governance.UpdateShare, request)
        return from_proto(Share, answer.share)

    async def delete(self, name: str) -> bool:
        """Take a share away; tells whether there was one. Bundles that were made stay what they are."""
        request = pb.DeleteShareRequest(name=name)
        return (await self._connection.call(self._connection.governance.DeleteShare, request)).deleted


def _members(names: Sequence[str]) -> Sequence[resource_pb2.Resource]:
    kinds = [ResourceType.SCHEMA if name.count(".") == _SCHEMA_DOTS else ResourceType.MODEL for name in names]
    return [
        resource_pb2.Resource(type=resource_type_number(kind), name=name)
        for kind, name in zip(kinds, names, strict=True)
    ]


class AsyncBundles(Namespace):
    """`client.bundles`: models as files that are signed and hold all that belongs to them, written here and taken in elsewhere."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self._verbs = Verbs(connection)

    async def export(
        self,
        references: Sequence[str],
        path: str | Path,
        *,
        share: str = "",
        blobs: bool = True,
        overwrite: bool = False,
        progress: Progress = None,
    ) -> BundleSummary:
        """Write models into a file, which appears complete or not at all. You need MANAGE on each model, or a share.

        Args:
            references: Models, each with all versions that are READY, and single versions; none means all of the share.
            path: The file to make.
            share: Name of a share that allows it.
            blobs: Whether the file holds the bytes of the versions, or only says which they are.
            overwrite: Replace the file if there is one.
            progress: As for `artifacts.download`.

        Raises:
            PermissionDenied: you may not export one of the models.
            ConfigurationError: the file exists and may not be overwritten.
        """
        target = await asyncio.to_thread(_target, path, overwrite)
        names = list(references)
        if not names and share:
            names = await _bundle_export.members_of(
                self._verbs, await AsyncShares(self._connection).get(share)
            )
        chosen = await _bundle_export.choose(self._verbs, names)
        return await _bundle_export.export(
            self._verbs, chosen, target, share=share, blobs=blobs, progress=progress
        )

    async def import_bundle(
        self,
        path: str | Path,
        names: str | Mapping[str, str],
        *,
        trust: Sequence[str | Path] = (),
        allow_untrusted: bool = False,
        aliases: bool = False,
        progress: Progress = None,
    ) -> tuple[ImportedVersion, ...]:
        """Check a bundle, then make its versions here under other names. Doing it again makes only what is missing.

        Versions get new numbers after those that the model has here; their metadata says what they were. Their approvals are not
        taken over.

        Args:
            path: The bundle.
            names: What to call the model, or the schema to put all of them into, or a name for each.
            trust: Public keys of origins (`modelyard audit key`) in PEM, or paths of files with one.
            allow_untrusted: Whether a bundle may come in that nobody vouches for.
            aliases: Point the aliases of the models here at what they point at there, as far as policies here let them.
            progress: As for `artifacts.upload`; first of the phase `hash`.

        Raises:
            SignatureInvalid: none of the keys signed it.
            ArchiveRefused: the archive is hostile or damaged.
            DigestMismatch: something in it is not as it says.
        """
        bundle = await self._opened(path, trust, allow_untrusted=allow_untrusted, progress=progress)
        chosen = _bundle_import.names_for(bundle.manifest, names)
        return await _bundle_import.Importer(self._verbs, bundle, chosen, progress).run(aliases=aliases)

    async def verify(
        self, path: str | Path, *, trust: Sequence[str | Path], progress: Progress = None
    ) -> Bundle:
        """Check everything in a bundle and return it, asking no service. Errors as `import_bundle`."""
        return await self._opened(path, trust, allow_untrusted=False, progress=progress)

    async def _opened(
        self, path: str | Path, trust: Sequence[str | Path], *, allow_untrusted: bool, progress: Progress
    ) -> Bundle:
        if not trust and not allow_untrusted:
            raise InvalidArgument(
                "trust: give the public key of the origin, as `modelyard audit key` writes it there"
            )
        pems = [await asyncio.to_thread(key.read_text) if isinstance(key, Path) else key for key in trust]
        keys = AuditKeys(pems) if pems else None
        return await _bundle_import.opened(Path(path), keys, progress)

    async def describe(self, reference: str) -> tuple[tuple[str, ...], str]:
        """The lines of the document of a version as it stands in bundles, and what `sign` wants to see of it."""
        return await self._verbs.describe(reference)

    async def sign(self, manifest: str, *, share: str = "") -> tuple[str, str]:
        """Have the manifest of a bundle signed; returns what is signed of it, and the signature."""
        return await self._verbs.sign(manifest, share=share)


def _target(path: str | Path, overwrite: bool) -> Path:  # noqa: FBT001  (by position to a thread)
    target = Path(path).expanduser().absolute()
    if target.is_dir() or (target.exists() and not overwrite):
        raise ConfigurationError(
            f"{target} exists; choose another file or allow it to be replaced (overwrite=True)"
        )
    return target
