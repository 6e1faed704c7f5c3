"""Between the kit's dataclasses and the common messages."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from modelyard.api.common.v1 import event_pb2, resource_pb2
from modelyard.api.governance.v1 import access_pb2
from modelyard_kit.access import SYSTEM_ID, Chain, Effect, Link, Privilege, ResourceGrant, ResourceType
from modelyard_kit.auth import Kind, Principal
from modelyard_kit.errors import InvalidField
from modelyard_kit.outbox import Event

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """Return the message for a moment, or None, which leaves a message field unset."""
    fields = timestamp_fields(moment)
    return None if fields is None else Timestamp(**fields)


def timestamp_fields(moment: datetime | None) -> dict[str, int] | None:
    """Return the fields of the message for a moment, of which a field of another message is made sooner; or None."""
    if moment is None:
        return None
    # As Timestamp.FromDatetime, which goes through the calendar: lists have thousands of moments.
    since = moment - _EPOCH
    return {"seconds": since.days * 86_400 + since.seconds, "nanos": since.microseconds * 1_000}


def moment(message: Timestamp) -> datetime:
    """Return the moment in a message, in UTC."""
    return message.ToDatetime(tzinfo=UTC)


def resource_type_to_proto(kind: ResourceType) -> resource_pb2.ResourceType.ValueType:
    """Return the enum value of a resource type."""
    return resource_pb2.ResourceType.Value(f"RESOURCE_TYPE_{kind.name}")


def resource_type_from_proto(value: int, field: str = "resource_type") -> ResourceType:
    """Return the resource type of an enum value.

    Raises:
        InvalidField: unspecified or unknown.
    """
    names = resource_pb2.ResourceType.DESCRIPTOR.values_by_number
    if value == resource_pb2.RESOURCE_TYPE_UNSPECIFIED or value not in names:
        raise InvalidField(field, "say which type of resource is meant")
    return ResourceType[names[value].name.removeprefix("RESOURCE_TYPE_")]


def privilege_to_proto(privilege: Privilege) -> access_pb2.Privilege.ValueType:
    """Return the enum value of a privilege."""
    return access_pb2.Privilege.Value(f"PRIVILEGE_{privilege}")


def privilege_from_proto(value: int, field: str = "privilege") -> Privilege:
    """Return the privilege of an enum value.

    Raises:
        InvalidField: unspecified or unknown.
    """
    names = access_pb2.Privilege.DESCRIPTOR.values_by_number
    if value == access_pb2.PRIVILEGE_UNSPECIFIED or value not in names:
        raise InvalidField(field, "say which privilege is meant")
    return Privilege(names[value].name.removeprefix("PRIVILEGE_"))


def effect_to_proto(effect: Effect) -> access_pb2.Effect.ValueType:
    """Return the enum value of an effect."""
    return access_pb2.Effect.Value(f"EFFECT_{effect}")


def effect_from_proto(value: int, field: str = "effect") -> Effect:
    """Return the effect of an enum value; unspecified means ALLOW.

    Raises:
        InvalidField: unknown.
    """
    if value in (access_pb2.EFFECT_UNSPECIFIED, access_pb2.EFFECT_ALLOW):
        return Effect.ALLOW
    if value == access_pb2.EFFECT_DENY:
        return Effect.DENY
    raise InvalidField(field, f"{value} is neither ALLOW nor DENY")


def grant_from_proto(message: access_pb2.ResourceGrant) -> ResourceGrant:
    """Return the grant of a message."""
    return ResourceGrant(
        message.resource_id, privilege_from_proto(message.privilege), effect_from_proto(message.effect)
    )


def grant_to_proto(grant: ResourceGrant) -> access_pb2.ResourceGrant:
    """Return the message of a grant."""
    return access_pb2.ResourceGrant(
        resource_id=grant.resource_id,
        privilege=privilege_to_proto(grant.privilege),
        effect=effect_to_proto(grant.effect),
    )


def link_to_proto(link: Link) -> resource_pb2.Resource:
    """Return the message of a link."""
    return resource_pb2.Resource(
        type=resource_type_to_proto(link.type), id=link.id, name=link.name, owner_id=link.owner_id
    )


def link_from_proto(message: resource_pb2.Resource, field: str = "resource") -> Link:
    """Return the link of a message."""
    return Link(
        resource_type_from_proto(message.type, f"{field}.type"), message.id, message.name, message.owner_id
    )


def chain_to_proto(chain: Chain) -> resource_pb2.ResourceChain:
    """Return the message of a chain."""
    return resource_pb2.ResourceChain(links=map(link_to_proto, chain))


def chain_from_proto(message: resource_pb2.ResourceChain, field: str = "chain") -> Chain:
    """Return the chain of a message.

    Raises:
        InvalidField: it is empty or does not end with the system.
    """
    chain = tuple(link_from_proto(link, f"{field}.links") for link in message.links)
    if not chain or chain[-1].id != SYSTEM_ID:
        raise InvalidField(field, "must list the resource and its containers, ending with the system")
    return chain


def event_to_proto(event: Event) -> event_pb2.Event:
    """Return the message of an event."""
    data = Struct()
    data.update(dict(event.data))
    return event_pb2.Event(
        id=event.id,
        type=event.type,
        resource=link_to_proto(event.resource),
        actor_id=event.actor.id,
        actor_name=event.actor.name,
        time=timestamp(event.time),
        request_id=event.request_id,
        data=data,
    )


def event_from_proto(message: event_pb2.Event) -> Event:
    """Return the event of a message. The kind of the actor is not sent; it is taken as a user."""
    kind: Kind = "user"
    return Event(
        type=message.type,
        resource=link_from_proto(message.resource),
        actor=Principal(message.actor_id, message.actor_name, kind),
        request_id=message.request_id,
        data=cast("dict[str, object]", json_format.MessageToDict(message.data)),
        id=message.id,
        time=moment(message.time),
    )
