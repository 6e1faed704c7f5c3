"""Messages of shares and bundles."""

from __future__ import annotations

import re

from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.api.governance.v1 import share_pb2
from modelyard_governance import shapes
from modelyard_governance.shares.models import CreateShare, Share, SignBundle, WantedShare
from modelyard_kit import limits
from modelyard_kit.access import ResourceType
from modelyard_kit.errors import InvalidField, NotFound
from modelyard_kit.grants import Grants
from modelyard_kit.protos import link_to_proto, resource_type_from_proto, timestamp

_NAME = re.compile(r"[a-z0-9_-]{1,63}")
_MEMBERS = (ResourceType.MODEL, ResourceType.SCHEMA)
_CHANGEABLE = ("description", "recipient", "members", "exporters")

_Named = pb.GetShareRequest | pb.UpdateShareRequest | pb.DeleteShareRequest


def parse_create(request: pb.CreateShareRequest) -> CreateShare:
    """Return the wanted share."""
    if not _NAME.fullmatch(request.share.name):
        raise InvalidField("share.name", "must be 1 to 63 lower-case letters, digits, '_' or '-'")
    content = _content(request.share, _CHANGEABLE)
    if not content.members:
        raise InvalidField("share.members", "is required: at least one model or schema")
    return CreateShare(request.share.name, content, request.request_id, shapes.fingerprint(request))


def parse_update(request: pb.UpdateShareRequest) -> tuple[str, WantedShare]:
    """Return the name of the share and what to change."""
    paths = tuple(request.update_mask.paths)
    can = f"these can be changed: {', '.join(_CHANGEABLE)}"
    if not paths:
        raise InvalidField("update_mask", f"name the fields to change; {can}")
    for path in paths:
        if path not in _CHANGEABLE:
            raise InvalidField("update_mask", f"{path[:80]!r} cannot be changed; {can}")
    wanted = _content(request.share, paths)
    if wanted.members == ():
        raise InvalidField("share.members", "needs at least one model or schema; delete a share without any")
    return parse_name(request), wanted


def parse_name(request: _Named) -> str:
    """Return the name of a share that should exist; one of the wrong form cannot."""
    return _known_name(request.name, "name")


def parse_sign(request: pb.SignBundleRequest) -> SignBundle:
    """Return what to sign."""
    if not request.manifest:
        raise InvalidField("manifest", "is required: bundle.json of the bundle")
    return SignBundle(request.manifest, shapes.text(request.share, "share"))


def _known_name(name: str, field: str) -> str:
    if not name:
        raise InvalidField(field, "is required: the name of a share")
    if not _NAME.fullmatch(name):
        raise NotFound("share", name[:80])
    return name


def _content(share: share_pb2.Share, fields: tuple[str, ...]) -> WantedShare:
    longest = limits.LIMITS["description_length"].maximum
    return WantedShare(
        description=shapes.text(share.description, "share.description", maximum=longest)
        if "description" in fields
        else None,
        recipient=shapes.text(share.recipient, "share.recipient") if "recipient" in fields else None,
        members=_members(share) if "members" in fields else None,
        exporters=_exporters(share) if "exporters" in fields else None,
    )


def _members(share: share_pb2.Share) -> tuple[tuple[ResourceType, str], ...]:
    limits.check("members_per_share", len(share.members))
    found = []
    for i, member in enumerate(share.members):
        kind = resource_type_from_proto(member.type)
        if kind not in _MEMBERS:
            raise InvalidField(f"share.members[{i}].type", "must be MODEL or SCHEMA")
        found.append((kind, shapes.required(member.name, f"share.members[{i}].name")))
    return tuple(dict.fromkeys(found))


def _exporters(share: share_pb2.Share) -> tuple[str, ...]:
    limits.check("exporters_per_share", len(share.exporters))
    names = [shapes.known_name(name, f"share.exporters[{i}]") for i, name in enumerate(share.exporters)]
    return tuple(sorted(set(names)))


def share_out(share: Share, grants: Grants) -> share_pb2.Share:
    """Return the message of a share, with the names that its exporters have now."""
    return share_pb2.Share(
        id=share.id,
        name=share.name,
        description=share.description,
        recipient=share.recipient,
        members=map(link_to_proto, share.members),
        exporters=sorted(filter(None, map(grants.name_of, share.exporters))),
        creator=share.creator,
        create_time=timestamp(share.create_time),
        update_time=timestamp(share.update_time),
    )
