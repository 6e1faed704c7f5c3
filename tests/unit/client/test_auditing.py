"""Exports of the audit chain: a good one holds, and whatever is done to it is found without asking anybody."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from modelyard import auditing
from modelyard.auditing import GENESIS, AuditKeys, verify_export
from modelyard.errors import InvalidArgument
from modelyard.types import AuditCheckpoint, AuditVerification, CheckpointPurpose

NOW = datetime(2026, 1, 2, 12, 0, 0, 5, tzinfo=UTC)
KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
LENGTH = 6


def pem(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def sign(
    purpose: CheckpointPurpose,
    anchor: tuple[int, bytes],
    head: tuple[int, bytes],
    *,
    key: Ed25519PrivateKey = KEY,
) -> AuditCheckpoint:
    name = auditing.key_id(key.public_key().public_bytes_raw())
    unsigned = AuditCheckpoint(
        purpose=purpose,
        anchor_sequence=anchor[0],
        anchor_hash=anchor[1].hex(),
        sequence=head[0],
        hash=head[1].hex(),
        time=NOW,
        key_id=name,
    )
    signature = base64.b64encode(key.sign(auditing.statement(unsigned))).decode()
    return dataclasses.replace(unsigned, signature=signature)


def export(length: int = LENGTH, after: int = 0, *, key: Ed25519PrivateKey = KEY) -> list[str]:
    """The entries after `after` with a checkpoint in the middle, and the signed end."""
    heads = [GENESIS]
    entries = []
    for number in range(1, length + 1):
        event = json.dumps({"id": f"e{number}", "text": "ä"}, ensure_ascii=False)
        heads.append(auditing.entry_hash(heads[-1], number, event))
        entries.append(auditing.entry_line(number, event, heads[-1].hex()))
    middle = sign(CheckpointPurpose.CHECKPOINT, (0, GENESIS), (4, heads[4]), key=key)
    end = sign(CheckpointPurpose.EXPORT, (after, heads[after]), (length, heads[length]), key=key)
    return [
        auditing.begin_line(after, heads[after].hex()),
        *entries[after:4],
        auditing.checkpoint_line(middle),
        *entries[4:],
        auditing.checkpoint_line(end),
    ]


def check(lines: list[str], *noted: AuditCheckpoint, key: Ed25519PrivateKey = KEY) -> AuditVerification:
    return verify_export(lines, AuditKeys([pem(key)]), noted)


def checkpoint_of(lines: list[str], kind: str) -> AuditCheckpoint:
    return auditing.checkpoint_from_json(
        next(document for line in lines if (document := json.loads(line))["kind"] == kind)
    )


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_good_export_holds(after: int) -> None:
    outcome = check(export(after=after))
    assert (outcome.valid, outcome.problem, outcome.broken_sequence) == (True, "", 0)
    assert (outcome.entries, outcome.anchor_sequence, outcome.checkpoints) == (LENGTH - after, after, 1)
    assert outcome.checkpoint == checkpoint_of(export(after=after), "end")
    assert outcome.head_hash == outcome.checkpoint.hash


@pytest.mark.parametrize("position", range(LENGTH + 3))
class TestEveryLine:
    """The first line, six entries, a checkpoint among them, the end."""

    def test_dropped(self, position: int) -> None:
        lines = export()
        kind = json.loads(lines.pop(position))["kind"]
        # A checkpoint within proves nothing that the end does not prove.
        assert check(lines).valid is (kind == "checkpoint")

    def test_doubled(self, position: int) -> None:
        lines = export()
        lines.insert(position, lines[position])
        kind = json.loads(lines[position])["kind"]
        assert check(lines).valid is (kind == "checkpoint")

    def test_cut_off_after_it(self, position: int) -> None:
        lines = export()[: position + 1]
        assert check(lines).valid is (position == LENGTH + 2)

    def test_swapped_with_the_next(self, position: int) -> None:
        lines = export()
        following = (position + 1) % len(lines)
        lines[position], lines[following] = lines[following], lines[position]
        assert not check(lines).valid

    def test_any_value_changed(self, position: int) -> None:
        original = json.loads(export()[position])
        for name, value in original.items():
            changed = value + 1 if isinstance(value, int) else _other(value)
            lines = export()
            lines[position] = json.dumps(original | {name: changed})
            assert not check(lines).valid, name

    def test_a_part_missing_or_no_json(self, position: int) -> None:
        original = json.loads(export()[position])
        for name in original:
            lines = export()
            lines[position] = json.dumps({key: item for key, item in original.items() if key != name})
            assert not check(lines).valid, name
        for broken in ("", "{", "[]", "null", '"kind"', '{"kind": "entry", "sequence": true}'):
            lines = export()
            lines[position] = broken
            assert not check(lines).valid, broken


def _other(text: str) -> str:
    """Change a text so that times and hashes stay what they look like."""
    return text[:-1] + ("1" if text[-1] != "1" else "2") if text[-1] != "Z" else text.replace("12:", "13:")


def test_a_rewritten_history_needs_the_key() -> None:
    forged = export(key=OTHER)
    outcome = check(forged)
    assert not outcome.valid
    assert "is signed by key" in outcome.problem
    name = auditing.key_id(KEY.public_key().public_bytes_raw())
    pretended = [line.replace(checkpoint_of(forged, "end").key_id, name) for line in forged]
    outcome = check(pretended)
    assert (outcome.valid, "signature" in outcome.problem) == (False, True)


def test_a_checkpoint_is_no_end_of_a_shorter_export() -> None:
    lines = export()
    position = next(number for number, line in enumerate(lines) if '"checkpoint"' in line)
    shorter = [*lines[:position], lines[position].replace('"checkpoint"', '"end"')]
    outcome = check(shorter)
    assert (outcome.valid, outcome.problem) == (False, "the end of the export is not the signed end of one")


class TestNoted:
    """What somebody kept elsewhere."""

    def test_agrees(self) -> None:
        assert check(export(), checkpoint_of(export(), "checkpoint"), checkpoint_of(export(), "end")).valid

    def test_the_export_must_reach_it(self) -> None:
        """An older export of the same chain, shown again to hide what came since."""
        outcome = check(export(length=5), checkpoint_of(export(), "end"))
        assert (outcome.valid, outcome.problem) == (
            False,
            "the export ends with entry 5, but a noted checkpoint is of 6",
        )
        outcome = check(export(after=5), checkpoint_of(export(), "checkpoint"))
        assert "begins after entry 5" in outcome.problem

    def test_another_history_signed_with_the_same_key_is_found(self) -> None:
        noted = sign(CheckpointPurpose.CHECKPOINT, (0, GENESIS), (3, bytes([7] * 32)))
        outcome = check(export(), noted)
        assert "not the one that the noted checkpoint signed" in outcome.problem

    def test_must_be_signed(self) -> None:
        noted = sign(CheckpointPurpose.CHECKPOINT, (0, GENESIS), (3, GENESIS), key=OTHER)
        assert "is signed by key" in check(export(), noted).problem

    def test_as_the_command_line_writes_it(self) -> None:
        noted = checkpoint_of(export(), "end")
        whole = dataclasses.replace(noted, time=NOW.replace(microsecond=0) + timedelta(seconds=1))
        for each in (noted, whole):
            document = dataclasses.asdict(each) | {"time": each.time.isoformat().replace("+00:00", "Z")}
            assert auditing.checkpoint_from_json(json.loads(json.dumps(document))) == each
        with pytest.raises(InvalidArgument, match="checkpoint"):
            auditing.checkpoint_from_json({"sequence": 1})


def test_keys_must_be_of_the_right_kind() -> None:
    with pytest.raises(InvalidArgument, match="not a public key"):
        AuditKeys(["nonsense"])
    elliptic = generate_private_key(SECP256R1()).public_key()
    with pytest.raises(InvalidArgument, match="Ed25519"):
        AuditKeys([elliptic.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()])
