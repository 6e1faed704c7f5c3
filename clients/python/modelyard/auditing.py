"""The audit chain outside the service: how entries hash, what checkpoints sign, and whether an export holds. Pure.

An export is JSON Lines: one `begin`, every entry, a `checkpoint` after each entry that one was made of, and one `end`, signed when the
export was made. So nothing can be changed, dropped, put elsewhere or cut off without the private key. Signatures need the extra:
`pip install "modelyard[signing]"`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from modelyard.errors import InvalidArgument, MissingExtra
from modelyard.types import AuditCheckpoint, AuditVerification, CheckpointPurpose

FORMAT = "modelyard.audit/1"
GENESIS = bytes(32)
"""Hash before the first entry."""
LINE_BYTES = 64 * 2**20
"""A longer line is none of an export."""

_PARTS = {field.name for field in fields(AuditCheckpoint)}


def entry_hash(previous: bytes, sequence: int, canonical_event: str) -> bytes:
    """Return SHA-256 of the previous hash, the sequence as eight bytes big-endian, and the event in UTF-8."""
    return hashlib.sha256(previous + sequence.to_bytes(8, "big") + canonical_event.encode()).digest()


def key_id(public_key: bytes) -> str:
    """Return what a key is called, from its 32 bytes."""
    return hashlib.sha256(public_key).hexdigest()[:16]


def statement(checkpoint: AuditCheckpoint) -> bytes:
    """Return what is signed: all of a checkpoint but its signature."""
    content = {name: value for name, value in checkpoint_to_json(checkpoint).items() if name != "signature"}
    return _line(content | {"format": FORMAT}).encode()


def checkpoint_to_json(checkpoint: AuditCheckpoint) -> dict[str, Any]:
    """Return a checkpoint as JSON, its time to the microsecond."""
    time = checkpoint.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    values = {name: getattr(checkpoint, name) for name in _PARTS}
    return values | {"time": time, "purpose": str(checkpoint.purpose)}


def checkpoint_from_json(document: Mapping[str, Any]) -> AuditCheckpoint:
    """Read a checkpoint as `checkpoint_to_json` and `modelyard audit checkpoint --output json` write it.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        values = {name: document[name] for name in _PARTS}
        time = datetime.fromisoformat(values["time"])
        whole = {"time": time, "purpose": CheckpointPurpose(values["purpose"])}
        checkpoint = AuditCheckpoint(**(values | whole))
        bytes.fromhex(checkpoint.hash + checkpoint.anchor_hash)
        checkpoint.sequence.to_bytes(8, "big")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InvalidArgument(
            f"checkpoint: is not one as `modelyard audit checkpoint` writes it: {error}"
        ) from error
    return checkpoint


def begin_line(anchor_sequence: int, anchor_hash: str) -> str:
    """Return the first line of an export."""
    return _line(
        {"kind": "begin", "format": FORMAT, "anchor_sequence": anchor_sequence, "anchor_hash": anchor_hash}
    )


def entry_line(sequence: int, canonical_event: str, entry_hash: str) -> str:
    """Return the line of an entry."""
    return _line(
        {"kind": "entry", "sequence": sequence, "canonical_event": canonical_event, "hash": entry_hash}
    )


def checkpoint_line(checkpoint: AuditCheckpoint) -> str:
    """Return the line of a checkpoint; one made for an export ends it."""
    kind = "end" if checkpoint.purpose is CheckpointPurpose.EXPORT else "checkpoint"
    return _line({"kind": kind} | checkpoint_to_json(checkpoint))


def _line(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


class AuditKeys:
    """Public keys that checkpoints may be signed with."""

    def __init__(self, pems: Iterable[str]) -> None:
        """Read keys in PEM.

        Raises:
            InvalidArgument: one is no Ed25519 public key.
            MissingExtra: `pip install 'modelyard[signing]'`.
        """
        try:
            from cryptography.hazmat.primitives import serialization
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError as error:
            raise MissingExtra("cryptography", "signing") from error
        self._keys: dict[str, Ed25519PublicKey] = {}
        for pem in pems:
            try:
                key = serialization.load_pem_public_key(pem.encode())
            except ValueError as error:
                raise InvalidArgument(f"key: is not a public key in PEM: {error}") from error
            if not isinstance(key, Ed25519PublicKey):
                raise InvalidArgument(
                    "key: is not an Ed25519 key; `modelyard audit key` writes the right one"
                )
            self._keys[key_id(key.public_bytes_raw())] = key

    def problem(self, checkpoint: AuditCheckpoint) -> str:
        """Return why the signature of a checkpoint does not count; empty when it does."""
        what = f"the checkpoint of entry {checkpoint.sequence}"
        return self.refuse(what, checkpoint.key_id, checkpoint.signature, statement(checkpoint))

    def refuse(self, what: str, key_id: str, signature: str, signed: bytes) -> str:
        """Return why a signature (base64) of one of the keys does not count, calling what it is on `what`; empty when it does."""
        from cryptography.exceptions import InvalidSignature

        key = self._keys.get(key_id)
        if key is None:
            known = ", ".join(sorted(self._keys)) or "none"
            return f"{what} is signed by key {key_id}; given: {known}"
        try:
            key.verify(base64.b64decode(signature, validate=True), signed)
        except (InvalidSignature, binascii.Error, ValueError):
            return f"the signature of {what} is wrong"
        return ""


class _Broken(Exception):
    """The export does not hold; the message says where."""


@dataclass
class _Reader:
    """Goes through an export line by line and stops at the first that does not fit."""

    keys: AuditKeys
    noted: dict[int, list[AuditCheckpoint]]
    anchor: tuple[int, str] | None = None
    sequence: int = 0
    head: bytes = GENESIS
    checkpoints: int = 0
    end: AuditCheckpoint | None = None

    def read(self, text: str | bytes) -> None:
        """Check the next line."""
        try:
            line = json.loads(text)
            kind = line["kind"]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise _Broken(f"the line after entry {self.sequence} is none of an export") from None
        if self.end is not None:
            raise _Broken("something follows the end of the export")
        if self.anchor is None:
            self._begin(line)
        elif kind == "entry":
            self._entry(line)
        elif kind in ("checkpoint", "end"):
            self._checkpoint(line, kind)
        else:
            raise _Broken(f"the line after entry {self.sequence} is of the unknown kind {str(kind)[:40]!r}")

    def _begin(self, line: Mapping[str, Any]) -> None:
        if line["kind"] != "begin" or line.get("format") != FORMAT:
            raise _Broken(f"the first line does not begin an export of the format {FORMAT}")
        try:
            self.sequence, self.head = int(line["anchor_sequence"]), bytes.fromhex(line["anchor_hash"])
            self.sequence.to_bytes(8, "big")
        except (KeyError, TypeError, ValueError, OverflowError):
            raise _Broken("the first line does not say where the export begins") from None
        self.anchor = (self.sequence, self.head.hex())
        for sequence in sorted(self.noted):
            if sequence < self.sequence:
                raise _Broken(
                    f"the export begins after entry {self.sequence}, but a noted checkpoint is of {sequence}"
                )
        self._compare_noted()

    def _entry(self, line: Mapping[str, Any]) -> None:
        wanted = self.sequence + 1
        sequence, event, digest = line.get("sequence"), line.get("canonical_event"), line.get("hash")
        if type(sequence) is not int or not isinstance(event, str):
            raise _Broken(f"entry {wanted} has no sequence or no event")
        if sequence != wanted:
            raise _Broken(f"entry {wanted} is missing: entry {sequence} comes next")
        try:
            head = entry_hash(self.head, wanted, event)
        except (UnicodeEncodeError, OverflowError):
            raise _Broken(f"entry {wanted} has an event that is no text") from None
        if head.hex() != digest:
            raise _Broken(f"entry {wanted} was changed: its hash is not that of its event")
        self.sequence, self.head = wanted, head
        self._compare_noted()

    def _checkpoint(self, line: Mapping[str, Any], kind: str) -> None:
        try:
            checkpoint = checkpoint_from_json(line)
        except InvalidArgument as error:
            raise _Broken(f"the checkpoint after entry {self.sequence} is broken: {error}") from None
        if problem := self.keys.problem(checkpoint):
            raise _Broken(problem)
        if (checkpoint.sequence, checkpoint.hash) != (self.sequence, self.head.hex()):
            raise _Broken(
                f"after entry {self.sequence} a checkpoint was signed of entry {checkpoint.sequence}, or of another history"
            )
        if kind == "end":
            self._end(checkpoint)
        elif checkpoint.purpose is not CheckpointPurpose.CHECKPOINT:
            raise _Broken(f"the checkpoint after entry {self.sequence} was signed for something else")
        else:
            self.checkpoints += 1

    def _end(self, checkpoint: AuditCheckpoint) -> None:
        if checkpoint.purpose is not CheckpointPurpose.EXPORT:
            raise _Broken("the end of the export is not the signed end of one")
        if (checkpoint.anchor_sequence, checkpoint.anchor_hash) != self.anchor:
            raise _Broken("the export was signed with another beginning")
        self.end = checkpoint

    def _compare_noted(self) -> None:
        for checkpoint in self.noted.pop(self.sequence, ()):
            if checkpoint.hash != self.head.hex():
                raise _Broken(f"entry {self.sequence} is not the one that the noted checkpoint signed")

    def finish(self) -> None:
        """Check that the export is whole."""
        if self.end is None:
            raise _Broken("the export is cut off: it has no signed end")
        if self.noted:
            late = min(self.noted)
            raise _Broken(f"the export ends with entry {self.sequence}, but a noted checkpoint is of {late}")


def verify_export(
    lines: Iterable[str | bytes], keys: AuditKeys, noted: Iterable[AuditCheckpoint] = ()
) -> AuditVerification:
    """Check an export without asking anybody.

    Args:
        lines: The export, line by line.
        keys: Public keys that you know to be those of the installation.
        noted: Checkpoints that you kept elsewhere; the export must agree with them and reach them.
    """
    reader = _Reader(keys, {})
    problem = ""
    try:
        for checkpoint in noted:
            if wrong := keys.problem(checkpoint):
                raise _Broken(wrong)  # noqa: TRY301  (one place makes the answer)
            reader.noted.setdefault(checkpoint.sequence, []).append(checkpoint)
        for line in lines:
            reader.read(line)
        reader.finish()
    except _Broken as error:
        problem = str(error)
    anchor = reader.anchor[0] if reader.anchor else 0
    return AuditVerification(
        valid=not problem,
        entries=reader.sequence - anchor,
        head_hash=reader.head.hex(),
        broken_sequence=reader.sequence + 1 if problem else 0,
        problem=problem,
        anchor_sequence=anchor,
        checkpoints=reader.checkpoints,
        checkpoint=reader.end,
    )
