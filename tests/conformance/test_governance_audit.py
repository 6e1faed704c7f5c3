"""The audit chain of a running governance: refusals in it, signed, exported, proved, cut by retention, and read by version."""

from __future__ import annotations

import dataclasses
import json
import stat
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from google.protobuf import json_format
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard import auditing
from modelyard.api.common.v1 import event_pb2, resource_pb2
from modelyard.api.governance.v1 import governance_service_pb2 as pb
from modelyard.types import AuditVerification
from modelyard_governance.audit_key import load_or_create_audit_key
from modelyard_governance.checkpoints import Checkpoints
from modelyard_governance.secret_files import UnusableSecretError
from modelyard_kit import denials
from modelyard_kit.access import Link
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidField, PermissionDenied
from modelyard_kit.protos import link_to_proto, timestamp
from tests.framework.waiting import eventually

from .governance_stack import IRIS, IRIS_1, SERVED, Caller, Stack, stack

# What the database refuses to whoever has not switched it off.
DISABLED = "ALTER TABLE audit DISABLE TRIGGER USER"


@pytest.fixture
def dsn(fresh_database: Callable[[str], str]) -> str:
    return fresh_database("modelyard_governance")


@pytest.fixture
async def running_stack(dsn: str, tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(dsn, tmp_path) as started:
        yield started


@pytest.fixture
async def database(dsn: str, running_stack: Stack) -> AsyncIterator[Database]:
    opened = Database.connect(dsn)
    yield opened
    await opened.close()


async def settled(admin: Caller) -> list[Any]:
    """Return the entries once everything that was done before has arrived."""
    await admin("CreateGrant", principal="admin", privilege="PRIVILEGE_APPROVE", resource_type=1)
    seen: list[Any] = []

    async def arrived() -> bool:
        seen[:] = (await admin("ListAuditEntries", page_size=1000)).entries
        return any(entry.event.type == "governance.grant.created" for entry in seen)

    await eventually(arrived)
    return seen


async def export(admin: Caller, after: int = 0) -> list[str]:
    metadata = [("authorization", f"Bearer {admin.token}")]
    request = pb.ExportAuditRequest(after_sequence=after)
    return [
        line
        async for answer in admin.stub.ExportAudit(request, metadata=metadata, timeout=60)
        for line in answer.lines
    ]


async def proved(admin: Caller, lines: list[str]) -> AuditVerification:
    return auditing.verify_export(lines, auditing.AuditKeys((await admin("GetAuditKeys")).keys))


async def run(database: Database, *statements: str) -> None:
    async def work(connection: AsyncConnection) -> None:
        for statement in statements:
            await connection.execute(text(statement))

    await database.in_tx(work)


class TestDenials:
    async def test_refused_attempts_are_in_the_chain(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        for _ in range(5):
            with pytest.raises(PermissionDenied):
                await ada("ListAuditEntries")
        with pytest.raises(PermissionDenied):
            await ada("ReviewVersion", model_version="prod.ml.iris/1", decision=1)
        found: list[Any] = []

        async def arrived() -> bool:
            answer = await admin("ListAuditEntries", filter="type = 'governance.access.denied'")
            found[:] = [entry.event for entry in answer.entries]
            return len({event.data["method"] for event in found}) == 2

        await eventually(arrived)
        told = {event.data["method"]: event for event in found}
        assert {event.actor_name for event in found} == {"ada"}
        assert told["ListAuditEntries"].data["privilege"] == "MANAGE"
        assert (told["ReviewVersion"].resource.id, told["ReviewVersion"].resource.name) == (
            IRIS.id,
            IRIS.name,
        )

    async def test_a_stop_loses_none(self, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(denials, "WRITE_SECONDS", 3_600.0)
        async with stack(dsn, tmp_path) as before:
            ada = await before.user("ada", await before.admin())
            with pytest.raises(PermissionDenied):
                await ada("VerifyAudit")
        async with stack(dsn, tmp_path) as after:
            admin = await after.admin()

            async def arrived() -> bool:
                answer = await admin("ListAuditEntries", filter="type = 'governance.access.denied'")
                return [entry.event.data["method"] for entry in answer.entries] == ["VerifyAudit"]

            await eventually(arrived)


class TestCheckpoints:
    async def test_signed_on_demand_and_only_once(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        entries = await settled(admin)
        first = (await admin("CheckpointAudit")).checkpoint
        assert (first.sequence, first.hash) == (entries[-1].sequence, entries[-1].hash)
        once = await admin("VerifyAudit")  # and perhaps one of an earlier end, which is signed at the start
        assert (once.valid, once.checkpoint) == (True, first)
        assert (await admin("CheckpointAudit")).checkpoint == first
        assert (await admin("VerifyAudit")).checkpoints == once.checkpoints

    async def test_signed_by_themselves_while_entries_come(self, dsn: str, tmp_path: Path) -> None:
        async with stack(dsn, tmp_path, audit_checkpoint_seconds=1) as started:
            admin = await started.admin()

            async def signed() -> bool:
                outcome = await admin("VerifyAudit")
                return bool(outcome.checkpoints and outcome.checkpoint.hash == outcome.head_hash)

            await eventually(signed)

    @pytest.mark.parametrize(
        ("tampering", "problem"),
        [
            ("UPDATE audit_checkpoints SET hash = decode(repeat('ab', 32), 'hex')", "not the one that its"),
            ("UPDATE audit_checkpoints SET signature = 'AAAA'", "signature"),
            ("UPDATE audit_checkpoints SET time = time - interval '1 day'", "signature"),
            ("UPDATE audit_checkpoints SET key_id = 'mine'", "is signed by key mine"),
        ],
    )
    async def test_a_changed_checkpoint_is_found(
        self, running_stack: Stack, database: Database, tampering: str, problem: str
    ) -> None:
        admin = await running_stack.admin()
        await settled(admin)
        await admin("CheckpointAudit")
        await run(database, tampering)
        outcome = await admin("VerifyAudit")
        assert (outcome.valid, problem in outcome.problem) == (False, True), outcome.problem

    async def test_a_history_written_anew_is_found(self, running_stack: Stack, database: Database) -> None:
        """Whoever may write the database can make every hash fit, but not the signatures."""
        admin = await running_stack.admin()
        await settled(admin)
        await admin("CheckpointAudit")
        await _rewrite(database)
        outcome = await admin("VerifyAudit")
        assert (outcome.valid, "its checkpoint signed" in outcome.problem) == (False, True)

    async def test_a_cut_off_end_is_found_with_the_recorded_end_moved(
        self, running_stack: Stack, database: Database
    ) -> None:
        admin = await running_stack.admin()
        last = (await settled(admin))[-1].sequence
        await admin("CheckpointAudit")
        await run(
            database,
            DISABLED,
            f"DELETE FROM audit WHERE sequence = {last}",
            f"UPDATE audit_head SET (sequence, hash) = (SELECT sequence, hash FROM audit WHERE sequence = {last - 1})",
        )
        outcome = await admin("VerifyAudit")
        assert (outcome.valid, outcome.broken_sequence) == (False, last)
        assert "is missing" in outcome.problem

    async def test_only_who_manages_the_system_signs_and_exports(self, running_stack: Stack) -> None:
        ada = await running_stack.user("ada", await running_stack.admin())
        with pytest.raises(PermissionDenied):
            await ada("CheckpointAudit")
        assert len((await ada("GetAuditKeys")).keys) == 1


async def _rewrite(database: Database) -> None:
    """Change the second event and make the whole chain after it fit again."""

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text(DISABLED))
        head = auditing.GENESIS
        rows = (
            await connection.execute(text("SELECT sequence, canonical_event FROM audit ORDER BY 1"))
        ).all()
        for sequence, canonical in rows:
            event = canonical.replace("created", "altered") if sequence == 2 else canonical
            digest = auditing.entry_hash(head, sequence, event)
            values = {"sequence": sequence, "event": event, "previous": head, "hash": digest}
            await connection.execute(
                text(
                    "UPDATE audit SET canonical_event = :event, previous_hash = :previous, hash = :hash "
                    "WHERE sequence = :sequence"
                ),
                values,
            )
            head = digest
        await connection.execute(text("UPDATE audit_head SET hash = :hash"), {"hash": head})

    await database.in_tx(work)


class TestExport:
    async def test_proves_itself_without_the_service(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await settled(admin)
        await admin("CheckpointAudit")
        await running_stack.user("ada", admin)
        entries = await settled(admin)
        lines = await export(admin)
        outcome = await proved(admin, lines)
        assert (outcome.valid, outcome.problem) == (True, "")
        assert outcome.entries >= len(entries)
        assert outcome.checkpoints == 1
        events = [json.loads(line) for line in lines]
        assert [event["canonical_event"] for event in events if event["kind"] == "entry"][: len(entries)] == [
            entry.canonical_event for entry in entries
        ]

    async def test_in_many_batches_and_from_anywhere(
        self, running_stack: Stack, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("modelyard_governance.checkpoints.EXPORT_BATCH", 2)
        admin = await running_stack.admin()
        last = (await settled(admin))[-1].sequence
        for after in (0, 1, last):
            outcome = await proved(admin, await export(admin, after))
            assert (outcome.valid, outcome.anchor_sequence) == (True, after)
            assert outcome.entries >= last - after
        with pytest.raises(Exception, match="begin after one of these"):
            await export(admin, last + 1_000)
        with pytest.raises(Exception, match="after_sequence"):
            await export(admin, -1)

    async def test_what_was_done_in_the_database_is_found_in_the_export(
        self, running_stack: Stack, database: Database
    ) -> None:
        admin = await running_stack.admin()
        await settled(admin)
        await run(
            database,
            DISABLED,
            "UPDATE audit SET canonical_event = replace(canonical_event, 'created', 'made')",
        )
        outcome = await proved(admin, await export(admin))
        assert (outcome.valid, "was changed" in outcome.problem) == (False, True)


class TestRetention:
    async def test_old_entries_go_and_the_rest_stays_provable(
        self, running_stack: Stack, database: Database, tmp_path: Path
    ) -> None:
        admin = await running_stack.admin()
        last = (await settled(admin))[-1].sequence
        signed = (await admin("CheckpointAudit")).checkpoint
        await running_stack.user("ada", admin)
        later = utc_now() + timedelta(days=30)
        key = load_or_create_audit_key(running_stack.settings.signing_key_file.with_name("audit_key.pem"))
        rules = Checkpoints(
            database=database,
            key=key,
            clock=lambda: later,
            interval=timedelta(hours=1),
            retention=timedelta(days=40),
        )
        assert await rules.drop_old() == 0  # everything is younger than that
        rules._retention = timedelta(days=29)
        assert await rules.drop_old() == signed.sequence
        assert await rules.drop_old() == 0

        async def told() -> bool:
            answer = await admin("ListAuditEntries", filter="type = 'governance.audit.dropped'")
            return len(answer.entries) == 1

        await eventually(told)
        kept = (await admin("ListAuditEntries", page_size=1000)).entries
        assert kept[0].sequence == last + 1
        outcome = await admin("VerifyAudit")
        assert (outcome.valid, outcome.anchor_sequence, outcome.problem) == (True, last, "")
        exported = await proved(admin, await export(admin))
        assert (exported.valid, exported.anchor_sequence) == (True, last)
        # A note of the anchor agrees with what is left; dropping it leaves the anchor unproved.
        await run(database, "DELETE FROM audit_checkpoints")
        outcome = await admin("VerifyAudit")
        assert (outcome.valid, "no checkpoint proves" in outcome.problem) == (False, True)

    async def test_nothing_goes_without_being_told_to(self, database: Database, running_stack: Stack) -> None:
        key = load_or_create_audit_key(running_stack.settings.signing_key_file.with_name("audit_key.pem"))
        later = datetime.now(UTC) + timedelta(days=10_000)
        rules = Checkpoints(
            database=database, key=key, clock=lambda: later, interval=timedelta(hours=1), retention=None
        )
        await rules.make()
        assert await rules.drop_old() == 0


class TestKeyFile:
    def test_made_once_for_its_owner_alone_and_rotated(self, tmp_path: Path) -> None:
        path = tmp_path / "secrets" / "audit.pem"
        first = load_or_create_audit_key(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert load_or_create_audit_key(path).pems == first.pems
        private = Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        path.write_text(private.decode() + "".join(first.pems))
        second = load_or_create_audit_key(path)
        assert second.key_id != first.key_id
        assert second.pems[1:] == first.pems

    def test_anything_else_is_refused_with_what_it_must_be(self, tmp_path: Path) -> None:
        path = tmp_path / "audit.pem"
        public = Ed25519PrivateKey.generate().public_key()
        for content in (
            "",
            "nonsense",
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        ):
            path.write_text(content)
            with pytest.raises(UnusableSecretError, match="Ed25519 private key"):
                load_or_create_audit_key(path)


def happened(number: int, kind: str, resource: Link, data: Any) -> event_pb2.Event:
    event = event_pb2.Event(
        id=f"e{number}",
        type=kind,
        resource=link_to_proto(resource),
        actor_id="u1",
        actor_name="ada",
        time=timestamp(datetime(2026, 1, number, tzinfo=UTC)),
        request_id="r",
    )
    json_format.ParseDict(data, event.data)
    return event


class TestActivity:
    async def test_of_a_version_from_all_services(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        catalog = await running_stack.login(running_stack.secret("catalog"))
        other = dataclasses.replace(IRIS_1, id="v-iris-2", name="prod.ml.iris/2")
        one, two = {"version": 1, "version_id": IRIS_1.id}, {"version": 2, "version_id": other.id}
        served = {"targets": [{"reference": "x", "model_version": IRIS_1.name, "weight": 100}]}
        events = [
            happened(1, "catalog.model_version.created", IRIS_1, {"description": "first"}),
            happened(2, "catalog.model_version.created", other, {}),
            happened(3, "catalog.alias.moved", IRIS, {"alias": "champion", "before": None, "after": one}),
            happened(4, "catalog.model_version.updated", IRIS_1, {"label": {"before": "a", "after": "b"}}),
            happened(5, "catalog.alias.moved", IRIS, {"alias": "champion", "before": one, "after": two}),
            happened(6, "inference.deployment.created", SERVED, {"after": served}),
            happened(7, "catalog.access.denied", dataclasses.replace(IRIS_1, id=""), {"count": 2}),
            happened(8, "catalog.model.updated", IRIS, {}),
        ]
        await catalog("RecordEvents", events=events)
        answer = await admin("ListActivity", model_version=IRIS_1.name)
        assert [(item.type, item.time.ToDatetime().day) for item in answer.activities] == [
            ("catalog.model_version.created", 1),
            ("catalog.alias.moved", 3),
            ("catalog.model_version.updated", 4),
            ("catalog.alias.moved", 5),
            ("inference.deployment.created", 6),
            ("catalog.access.denied", 7),
        ]
        seen = [json_format.MessageToDict(item) for item in answer.activities]
        assert (seen[2]["before"], seen[2]["after"]) == ({"label": "a"}, {"label": "b"})
        assert "before" not in seen[1]
        assert (seen[1]["after"]["version"], seen[1]["details"]) == (1, {"alias": "champion"})
        assert (seen[3]["actor"], seen[3]["resource"]) == ("ada", "prod.ml.iris")
        newest = await admin(
            "ListActivity",
            model_version=IRIS_1.name,
            page_size=1,
            order_by="sequence desc",
            filter="actor = 'ada'",
        )
        assert [item.type for item in newest.activities] == ["catalog.access.denied"]
        following = await admin(
            "ListActivity",
            model_version=IRIS_1.name,
            page_size=1,
            order_by="sequence desc",
            filter="actor = 'ada'",
            page_token=newest.next_page_token,
        )
        assert [item.type for item in following.activities] == ["inference.deployment.created"]

    async def test_only_for_who_may_read_the_model(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        for version in (IRIS_1.name, "prod.ml.iris/99"):
            with pytest.raises(PermissionDenied):
                await ada("ListActivity", model_version=version)
        with pytest.raises(InvalidField):
            await admin("ListActivity", model_version="")


def test_resource_types_of_versions_are_called_as_the_database_expects() -> None:
    """The function `audit_subjects` of the migration names it."""
    assert (
        resource_pb2.ResourceType.Name(resource_pb2.RESOURCE_TYPE_MODEL_VERSION)
        == "RESOURCE_TYPE_MODEL_VERSION"
    )
