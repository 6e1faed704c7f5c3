"""What the groups of verbs (`client.models`, `client.grants` …) have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import field_mask_pb2

from modelyard._convert import from_proto
from modelyard.api.catalog.v1 import catalog_service_pb2
from modelyard.api.common.v1 import resource_pb2
from modelyard.api.governance.v1 import governance_service_pb2
from modelyard.errors import InvalidArgument
from modelyard.references import InvalidReference, parse_name, parse_version_reference
from modelyard.types import Resource, ResourceType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from modelyard._connection import Connection


class Namespace:
    """Verbs of one noun, on the connection of a client."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _undelete(self, kind: ResourceType, resource_id: str) -> Resource:
        """Bring something of the catalog back."""
        if not resource_id:
            raise InvalidArgument("id: give the id of what was deleted; a list with show_deleted tells it")
        request = catalog_service_pb2.UndeleteResourceRequest(type=resource_type_number(kind), id=resource_id)
        answer = await self._connection.call(self._connection.catalog.UndeleteResource, request)
        return from_proto(Resource, answer.resource)

    async def _owner_id(self, owner: str | None, owner_id: str | None) -> str | None:
        """The id of an owner that was given by name or by id; None if by neither."""
        if owner is None:
            return owner_id
        if owner_id is not None:
            raise InvalidArgument("owner: give either owner or owner_id")
        request = governance_service_pb2.GetPrincipalRequest(name=owner)
        answer = await self._connection.call(self._connection.governance.GetPrincipal, request)
        return str(answer.principal.id)


def update_mask(given: Mapping[str, object]) -> field_mask_pb2.FieldMask:
    """The paths whose value was given; `given` has None for the others.

    Raises:
        InvalidArgument: nothing was given.
    """
    paths = [path for path, value in given.items() if value is not None]
    if not paths:
        raise InvalidArgument(f"nothing to change: give at least one of {', '.join(given)}")
    return field_mask_pb2.FieldMask(paths=paths)


def text_literal(text: str) -> str:
    """Text as it stands in a filter."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def full_name(name: str, wanted: str, parts: int) -> str:
    """The full name after a rename of `name`: `wanted` is its last part, or a full name in the same container.

    Raises:
        InvalidArgument: it is malformed, or in another container.
    """
    container = name.rpartition(".")[0]
    full = f"{container}.{wanted}" if container and "." not in wanted else wanted
    resource_name(full, parts, "new_name")
    if full.rpartition(".")[0] != container:
        other = "move it with models.move" if parts == 3 else "a schema stays in its catalog"
        raise InvalidArgument(f"new_name: {full} is not in {container}; {other}")
    return full


def version_reference(text: str, field: str = "reference") -> str:
    """The reference without `models:/`, refused here when it cannot be one.

    Raises:
        InvalidArgument: it is malformed.
    """
    try:
        return str(parse_version_reference(text))
    except InvalidReference as error:
        raise InvalidArgument(f"{field}: {error}") from None


def resource_name(text: str, parts: int, field: str = "name") -> str:
    """A name of so many dotted parts, refused here when it cannot be one.

    Raises:
        InvalidArgument: it is malformed.
    """
    if not isinstance(text, str):  # the arguments of log_model the other way round, for example
        raise InvalidArgument(f"{field}: must be a name, not a value of type {type(text).__name__}")
    try:
        parse_name(text, parts)
    except InvalidReference as error:
        raise InvalidArgument(f"{field}: {error}") from None
    return text


def resource_type(name: str, given: ResourceType | str | None) -> ResourceType:
    """The kind of resource meant by a name: as given, else by its form.

    Raises:
        InvalidArgument: the kind is unknown, or the form fits a model as well as a deployment.
    """
    if given:
        try:
            return ResourceType(given.upper())
        except ValueError:
            raise InvalidArgument(f"resource_type: {given!r} is none of {', '.join(ResourceType)}") from None
    if name.startswith("models:/") or "/" in name or "@" in name:
        return ResourceType.MODEL_VERSION
    forms = {0: ResourceType.SYSTEM, 1: ResourceType.CATALOG, 2: ResourceType.SCHEMA}
    parts = len(name.split(".")) if name else 0
    if parts not in forms:
        raise InvalidArgument(f"resource_type: say whether {name} is a MODEL or a DEPLOYMENT")
    return forms[parts]


def resource_type_number(kind: ResourceType) -> resource_pb2.ResourceType.ValueType:
    """The kind of resource as the contracts number it."""
    return resource_pb2.ResourceType.Value(f"RESOURCE_TYPE_{kind}")
