"""Messages of the audit chain: checkpoints, activity of versions, verifications."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from modelyard.api.governance.v1 import audit_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.types import AuditCheckpoint
from modelyard_governance.models import Entry, Verification
from modelyard_kit.errors import InvalidField
from modelyard_kit.protos import timestamp


def parse_after(request: pb.ExportAuditRequest) -> int:
    """Return the sequence after which an export begins."""
    if request.after_sequence < 0:
        raise InvalidField("after_sequence", f"is {request.after_sequence}; 0 means the oldest entry")
    return request.after_sequence


def checkpoint_out(checkpoint: AuditCheckpoint) -> audit_pb2.AuditCheckpoint:
    """Return the message of a checkpoint."""
    return audit_pb2.AuditCheckpoint(
        purpose=audit_pb2.AuditCheckpoint.Purpose.Value(f"PURPOSE_{checkpoint.purpose}"),
        anchor_sequence=checkpoint.anchor_sequence,
        anchor_hash=checkpoint.anchor_hash,
        sequence=checkpoint.sequence,
        hash=checkpoint.hash,
        time=timestamp(checkpoint.time),
        key_id=checkpoint.key_id,
        signature=checkpoint.signature,
    )


def verification_out(outcome: Verification) -> pb.VerifyAuditResponse:
    """Return the answer about the whole chain."""
    return pb.VerifyAuditResponse(
        valid=outcome.valid,
        entries=outcome.entries,
        head_hash=outcome.head_hash.hex(),
        broken_sequence=outcome.broken_sequence,
        problem=outcome.problem,
        anchor_sequence=outcome.anchor_sequence,
        checkpoints=outcome.checkpoints,
        checkpoint=checkpoint_out(outcome.checkpoint) if outcome.checkpoint else None,
    )


def activity_out(entry: Entry) -> audit_pb2.Activity:
    """Return an entry as what happened: what was so before, what is so after, and the rest."""
    event = json.loads(entry.canonical_event)
    before, after, details = _sides(event.get("data") or {})
    made = audit_pb2.Activity(
        sequence=entry.sequence,
        actor=event.get("actorName", ""),
        actor_id=event.get("actorId", ""),
        type=event["type"],
        resource=event["resource"].get("name", ""),
        request_id=event.get("requestId", ""),
        before=before,
        after=after,
        details=details,
    )
    made.time.FromJsonString(event["time"])
    return made


def _sides(data: Mapping[str, Any]) -> tuple[Struct | None, Struct | None, Struct | None]:
    """Part the data of an event, whose `before` and `after` may be there in whole or for single fields."""
    whole = {side: data[side] for side in ("before", "after") if isinstance(data.get(side), Mapping)}
    before, after = dict(whole.get("before", {})), dict(whole.get("after", {}))
    details = {}
    for name, value in data.items():
        if name in ("before", "after"):
            continue
        if isinstance(value, Mapping) and value and value.keys() <= {"before", "after"}:
            before |= {name: value["before"]} if "before" in value else {}
            after |= {name: value["after"]} if "after" in value else {}
        else:
            details[name] = value
    return _struct(before), _struct(after), _struct(details)


def _struct(values: Mapping[str, Any]) -> Struct | None:
    return json_format.ParseDict(dict(values), Struct()) if values else None
