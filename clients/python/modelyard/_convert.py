"""Between protobuf messages and the dataclasses of `types`, by their equal field names.

One generic pair of functions serves every message: the field names of a dataclass are those of its message, and
`MESSAGES` and `ENUMS` say which classes belong together. A unit test holds both sides equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from google.protobuf import json_format, struct_pb2

from modelyard import types
from modelyard.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
    from google.protobuf.message import Message

T = TypeVar("T")
M = TypeVar("M", bound="Message")
_Reader = Callable[[Any], Any]

_API = "modelyard.api"
MESSAGES: dict[str, type[Any]] = {
    **{
        f"{_API}.catalog.v1.{c.__name__}": c
        for c in (types.Catalog, types.Schema, types.Model, types.ModelVersion)
    },
    **{
        f"{_API}.catalog.v1.{c.__name__}": c
        for c in (types.TensorSpec, types.MethodSignature, types.Signature)
    },
    **{
        f"{_API}.catalog.v1.{c.__name__}": c
        for c in (types.Provenance, types.ModelMetadata, types.CustomMetadata, types.AliasMove, types.Limit)
    },
    **{f"{_API}.catalog.v1.{c.__name__}": c for c in (types.LineageNode, types.LineageEdge)},
    f"{_API}.catalog.v1.DatasetReference": types.Dataset,
    **{
        f"{_API}.artifact.v1.{c.__name__}": c
        for c in (types.FileEntry, types.Artifact, types.MissingBlob, types.Upload, types.DamagedBlob)
    },
    **{
        f"{_API}.artifact.v1.{c.__name__}": c
        for c in (types.SignedUrl, types.PartUrl, types.BlobUrls, types.FileUrl)
    },
    **{
        f"{_API}.artifact.v1.{c.__name__}": c
        for c in (types.IntrospectionTest, types.Finding, types.FileFormat, types.Inspection)
    },
    **{f"{_API}.governance.v1.{c.__name__}": c for c in (types.Principal, types.ApiToken, types.Grant)},
    **{f"{_API}.governance.v1.{c.__name__}": c for c in (types.ApprovalPolicy, types.Review, types.Approval)},
    f"{_API}.artifact.v1.Signature": types.ArtifactSignature,
    f"{_API}.governance.v1.TrustRoot": types.TrustRoot,
    **{
        f"{_API}.governance.v1.{c.__name__}": c
        for c in (types.Membership, types.Issuer, types.EffectivePrivilege)
    },
    **{
        f"{_API}.governance.v1.{c.__name__}": c
        for c in (types.Condition, types.ConditionResult, types.GateOverride, types.GateExplanation)
    },
    f"{_API}.governance.v1.JsonWebKey": types.SigningKey,
    f"{_API}.governance.v1.GetJwksResponse": types.SigningKeys,
    f"{_API}.governance.v1.CheckPermissionResponse": types.PermissionDecision,
    f"{_API}.governance.v1.AuditEntry": types.AuditEntry,
    f"{_API}.governance.v1.VerifyAuditResponse": types.AuditVerification,
    **{f"{_API}.governance.v1.{c.__name__}": c for c in (types.AuditCheckpoint, types.Activity)},
    **{f"{_API}.governance.v1.{c.__name__}": c for c in (types.ModelCard, types.CardChange)},
    **{f"{_API}.governance.v1.{c.__name__}": c for c in (types.Webhook, types.WebhookDelivery)},
    f"{_API}.governance.v1.Share": types.Share,
    f"{_API}.common.v1.Event": types.Event,
    f"{_API}.common.v1.Resource": types.Resource,
    **{f"{_API}.inference.v1.{c.__name__}": c for c in (types.TrafficTarget, types.TargetStatus)},
    **{
        f"{_API}.inference.v1.{c.__name__}": c
        for c in (types.ShadowCounts, types.RolloutPolicy, types.RolloutStatus, types.TrafficLimits)
    },
    **{f"{_API}.inference.v1.{c.__name__}": c for c in (types.Deployment, types.Replica)},
    **{f"{_API}.inference.v1.{c.__name__}": c for c in (types.Resources, types.Autoscaling, types.Batching)},
    f"{_API}.inference.v1.Environment": types.Environment,
    **{
        f"{_API}.inference.v1.{c.__name__}": c
        for c in (types.Deployment, types.Replica, types.LogLine, types.LoggingPolicy)
    },
    **{
        f"{_API}.inference.v1.{c.__name__}": c
        for c in (types.InferenceCounters, types.ReplicaStatistics, types.DeploymentStatistics)
    },
    **{f"{_API}.inference.v1.{c.__name__}": c for c in (types.DeploymentCondition, types.DeploymentRevision)},
    f"{_API}.oip.v2.ServerMetadataResponse": types.ServerInfo,
    f"{_API}.oip.v2.ModelMetadataResponse": types.EndpointInfo,
    f"{_API}.oip.v2.ModelMetadataResponse.TensorMetadata": types.TensorSpec,
}
ENUMS: dict[str, type[StrEnum]] = {
    f"{_API}.common.v1.ResourceType": types.ResourceType,
    f"{_API}.catalog.v1.ModelVersion.State": types.VersionState,
    f"{_API}.catalog.v1.ModelVersion.ApprovalState": types.VersionApproval,
    f"{_API}.catalog.v1.ModelVersion.ArtifactTests": types.ArtifactTests,
    f"{_API}.catalog.v1.InputLayout": types.InputLayout,
    f"{_API}.catalog.v1.CustomMetadata.Category": types.MetadataCategory,
    f"{_API}.catalog.v1.LineageNode.Kind": types.LineageKind,
    f"{_API}.catalog.v1.LineageDirection": types.LineageDirection,
    f"{_API}.artifact.v1.Upload.State": types.UploadState,
    f"{_API}.artifact.v1.IntrospectionTest.Result": types.TestOutcome,
    f"{_API}.artifact.v1.Finding.Severity": types.Severity,
    f"{_API}.artifact.v1.Inspection.State": types.InspectionState,
    f"{_API}.artifact.v1.Inspection.Scan": types.ScanResult,
    f"{_API}.artifact.v1.Signature.Trust": types.SignatureTrust,
    f"{_API}.governance.v1.TrustRoot.Kind": types.TrustRootKind,
    f"{_API}.governance.v1.Principal.Kind": types.PrincipalKind,
    f"{_API}.governance.v1.Privilege": types.Privilege,
    f"{_API}.governance.v1.Effect": types.Effect,
    f"{_API}.governance.v1.Review.Decision": types.ReviewDecision,
    f"{_API}.governance.v1.Approval.State": types.ApprovalState,
    f"{_API}.governance.v1.GatedAction": types.GatedAction,
    f"{_API}.governance.v1.AuditCheckpoint.Purpose": types.CheckpointPurpose,
    f"{_API}.governance.v1.ModelCard.Format": types.CardFormat,
    f"{_API}.governance.v1.Webhook.State": types.WebhookState,
    f"{_API}.governance.v1.WebhookDelivery.State": types.WebhookDeliveryState,
    f"{_API}.inference.v1.Deployment.State": types.DeploymentState,
    f"{_API}.inference.v1.DeploymentCondition.Status": types.ConditionStatus,
    f"{_API}.inference.v1.DeploymentRevision.Change": types.DeploymentChange,
    f"{_API}.inference.v1.ControlRolloutRequest.Verb": types.RolloutVerb,
    f"{_API}.inference.v1.UpdateStrategy": types.UpdateStrategy,
    f"{_API}.inference.v1.Environment.Source": types.EnvironmentSource,
    f"{_API}.inference.v1.Replica.State": types.ReplicaState,
    f"{_API}.inference.v1.SignatureState": types.SignatureState,
    f"{_API}.inference.v1.LogLevel": types.LogLevel,
    f"{_API}.inference.v1.ReplicaLog": types.ReplicaLog,
}


def from_proto(kind: type[T], message: Message) -> T:
    """The dataclass `kind` with the values of `message`."""
    values = {}
    for name, read, may_be_absent in _plan(cast("Any", kind), message.DESCRIPTOR):
        if not may_be_absent or message.HasField(name):
            value = getattr(message, name)
            values[name] = value if read is None else read(value)
    return kind(**values)


def to_proto(kind: type[M], value: object) -> M:
    """A message of type `kind` with the values of a dataclass; None and empty values are left out."""
    message = kind()
    _fill(message, value)
    return message


def rows(kind: type[T], messages: Iterable[Message]) -> list[T]:
    """Each message as the dataclass `kind`."""
    return [from_proto(kind, message) for message in messages]


@cache
def _plan(kind: type[Any], descriptor: Descriptor) -> Sequence[tuple[str, _Reader | None, bool]]:
    """For each field of a dataclass its name, what reads its value, and whether it keeps its default, None, where none is given.

    Looked up once: descriptors answer slowly, and an answer may have 100,000 rows.
    """
    known = descriptor.fields_by_name
    return [
        (f.name, _reader(known[f.name]), f.default is None and known[f.name].has_presence)
        for f in fields(kind)
    ]


def _reader(field: FieldDescriptor) -> _Reader | None:
    """What makes a value of this field one of the dataclass; None where it is the same."""
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        item = _reader_of_one(field.message_type.fields_by_name["value"]) or _same
        return lambda value: {key: item(value[key]) for key in sorted(value)}
    one = _reader_of_one(field)
    if field.is_repeated:
        return tuple if one is None else lambda value: tuple(map(one, value))
    return one


def _reader_of_one(field: FieldDescriptor) -> _Reader | None:
    if field.enum_type is not None:
        return partial(enum_from_number, field.enum_type)
    if field.message_type is None:
        return None
    name = field.message_type.full_name
    return _WELL_KNOWN.get(name) or partial(from_proto, MESSAGES[name])


def _same(value: Any) -> Any:
    return value


def _whole(value: Any) -> Any:
    """The value with whole numbers as int, all that protobuf kept of `max_iter=500` being 500.0, and keys sorted."""
    if isinstance(value, dict):
        return {key: _whole(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WELL_KNOWN: Mapping[str, _Reader] = {
    "google.protobuf.Timestamp": lambda value: value.ToDatetime(tzinfo=UTC),
    "google.protobuf.Duration": lambda value: value.ToTimedelta(),
    "google.protobuf.Struct": lambda value: _whole(json_format.MessageToDict(value)),
    "google.protobuf.Value": json_format.MessageToDict,
}


def _fill(message: Message, value: object) -> None:
    known = message.DESCRIPTOR.fields_by_name
    for f in fields(cast("Any", value)):
        _set(message, known[f.name], getattr(value, f.name))


def _set(message: Message, field: Any, value: Any) -> None:
    target = getattr(message, field.name)
    if value is None:
        return
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
        json_format.ParseDict(_plain(dict(value), field.name), target)
    elif isinstance(value, datetime):
        target.FromDatetime(value.astimezone(UTC))
    elif isinstance(value, timedelta):
        target.FromTimedelta(value)
    elif field.enum_type is not None:
        member = parse_enum(ENUMS[field.enum_type.full_name], value, field.name)
        setattr(message, field.name, enum_number(field.enum_type, member))
    elif field.is_repeated and isinstance(value, Mapping):
        target.update(value)
    elif field.is_repeated and field.message_type is not None:
        for item in value:
            _fill(target.add(), item)
    elif field.is_repeated:
        target.extend(value)
    elif field.message_type is not None:
        _fill(target, value)
    else:
        setattr(message, field.name, value)


def enum_from_number(descriptor: EnumDescriptor, number: int) -> StrEnum | None:
    """The member for a number; None for UNSPECIFIED and for values newer than this client."""
    known = descriptor.values_by_number.get(number)
    if known is None or number == 0:
        return None
    try:
        return ENUMS[descriptor.full_name](known.name.removeprefix(_prefix(descriptor)))
    except ValueError:
        return None


def enum_number(descriptor: EnumDescriptor, value: StrEnum) -> int:
    """The number of a member."""
    return int(descriptor.values_by_name[_prefix(descriptor) + value].number)


def parse_enum(kind: type[T], value: str, field: str) -> T:
    """A member by its name in any case.

    Raises:
        InvalidArgument: there is no such member; the message lists them.
    """
    try:
        return cast("T", cast("Any", kind)(value.upper().replace("-", "_")))
    except ValueError:
        names = ", ".join(cast("Iterable[str]", kind))
        raise InvalidArgument(f"{field}: {value!r} is none of {names}") from None


def _prefix(descriptor: EnumDescriptor) -> str:
    """`RESOURCE_TYPE_` of `ResourceType`; the zero value is always `<prefix>UNSPECIFIED`."""
    return descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")


def json_values(values: Mapping[str, Any], field: str) -> dict[str, struct_pb2.Value]:
    """Any JSON values, numpy scalars included, as protobuf values.

    Raises:
        InvalidArgument: a value is not JSON, or is NaN or infinite, which JSON cannot hold.
    """
    return {
        name: json_format.ParseDict(_plain(value, f"{field}[{name!r}]"), struct_pb2.Value())
        for name, value in values.items()
    }


def _plain(value: Any, field: str) -> Any:
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{field}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{field}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidArgument(
            f"{field}: {value} cannot be stored; JSON has no such number, leave it out or send a text"
        )
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InvalidArgument(
        f"{field}: a value of type {type(value).__name__} cannot be stored; send numbers, texts, lists or dicts"
    )
