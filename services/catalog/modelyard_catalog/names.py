"""Names and references in requests, checked by the client package's one parser; every refusal names its field."""

from __future__ import annotations

import re
import uuid
from typing import Any

from modelyard.references import (
    InvalidReference,
    VersionReference,
    parse_alias,
    parse_label,
    parse_name,
    parse_version_reference,
)
from modelyard_catalog.commands import ById, Container, Target, VersionRef
from modelyard_catalog.models import ComputedAlias, Path
from modelyard_kit.access import ResourceType
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import resource_type_from_proto

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LIKE_A_VERSION = re.compile(r"v[0-9]+", re.IGNORECASE)
_PARTS = {ResourceType.CATALOG: 1, ResourceType.SCHEMA: 2, ResourceType.MODEL: 3}
_RESERVED = frozenset((*ComputedAlias, "latest"))


def path(field: str, text: str, parts: int) -> Path:
    """Return the parts of a dotted name.

    Raises:
        InvalidField: it is missing, or not a name of so many parts.
    """
    if not text:
        raise InvalidField(field, "is required")
    try:
        return parse_name(text, parts)
    except InvalidReference as error:
        raise InvalidField(field, str(error)) from error


def version(field: str, text: str) -> VersionRef:
    """Return a version reference.

    Raises:
        InvalidField: it is missing or malformed.
    """
    if not text:
        raise InvalidField(field, "is required")
    try:
        parsed: VersionReference = parse_version_reference(text)
    except InvalidReference as error:
        raise InvalidField(field, str(error)) from error
    return VersionRef(tuple(parsed.model.split(".")), parsed.number, parsed.alias)


def numbered_version(field: str, text: str) -> VersionRef:
    """Return a version reference that says the number.

    Raises:
        InvalidField: it is missing, malformed, or without a number.
    """
    ref = version(field, text)
    if ref.number is None:
        raise InvalidField(field, f"name the version by its number, as in {'.'.join(ref.model)}/1")
    return ref


def settable_alias(field: str, text: str) -> str:
    """Return the name of an alias that may be set.

    Raises:
        InvalidField: it is missing, malformed or reserved.
    """
    if not text:
        raise InvalidField(field, "is required")
    try:
        parse_alias(text)
    except InvalidReference as error:
        raise InvalidField(field, str(error)) from error
    if text.lower() in _RESERVED:
        raise InvalidField(
            field, f"{text!r} is reserved: default, first and last are worked out, latest is ambiguous"
        )
    if _LIKE_A_VERSION.fullmatch(text):
        raise InvalidField(field, f"{text!r} reads like a version number; choose another name")
    return text


def label(field: str, text: str) -> str:
    """Return the label of a version, or an empty text for none.

    Raises:
        InvalidField: it is malformed or reserved.
    """
    if not text:
        return ""
    try:
        parse_label(text)
    except InvalidReference as error:
        raise InvalidField(field, str(error)) from error
    if text.lower() in _RESERVED:
        raise InvalidField(field, f"{text!r} is reserved: it would mean something else in a reference")
    return text


def digest(field: str, text: str) -> str:
    """Return the digest of an artifact.

    Raises:
        InvalidField: it is missing or malformed.
    """
    if not text:
        raise InvalidField(field, "is required")
    if not _DIGEST.fullmatch(text):
        raise InvalidField(
            field, "is not a digest: write sha256: and 64 lower-case hex digits, as CommitUpload returns it"
        )
    return text


def identifier(field: str, text: str) -> str:
    """Return an immutable id in its usual form.

    Raises:
        InvalidField: it is not a UUID.
    """
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise InvalidField(field, "is not an id: ids are UUIDs, as the service returns them") from error


def container(request: Any, field: str, parts: int) -> Container:
    """Return what a list is of: the name in `field` of the request, or the id in the field beside it.

    Raises:
        InvalidField: both are given, or what is given is malformed.
    """
    given, by_id = getattr(request, field), getattr(request, f"{field}_id")
    if not given and not by_id:
        raise InvalidField(field, f"is required, or {field}_id")
    if not by_id:
        return path(field, given, parts)
    if given:
        raise InvalidField(f"{field}_id", f"give either {field} or {field}_id")
    return ById(identifier(f"{field}_id", by_id))


def resource_type(field: str, value: int) -> ResourceType:
    """Return the type of something that the catalog keeps.

    Raises:
        InvalidField: it is unspecified, unknown, or kept elsewhere.
    """
    found = resource_type_from_proto(value, field)
    if found not in _PARTS and found is not ResourceType.MODEL_VERSION:
        raise InvalidField(field, "must be CATALOG, SCHEMA, MODEL or MODEL_VERSION")
    return found


def target(type_field: str, type_value: int, name: str) -> Target:
    """Return what a type and the field `name` together refer to.

    Raises:
        InvalidField: either is missing or malformed.
    """
    kind = resource_type(type_field, type_value)
    if kind is ResourceType.MODEL_VERSION:
        return version("name", name)
    return path("name", name, _PARTS[kind])
