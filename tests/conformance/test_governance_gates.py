"""Gates: who may approve and for how long, evidence, explanations, and overrides, over real gRPC and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from google.protobuf.duration_pb2 import Duration

from modelyard.api.artifact.v1.artifact_pb2 import Inspection, IntrospectionTest, Signature
from modelyard.api.governance.v1 import approval_pb2
from modelyard_kit.access import SYSTEM
from modelyard_kit.errors import InvalidField, LimitExceeded, NotFound, PeerUnavailable, PermissionDenied
from modelyard_kit.limits import LIMITS
from modelyard_kit.protos import chain_to_proto
from tests.framework.waiting import eventually

from .governance_stack import IRIS, IRIS_1, ML, PROD, Caller, Stack, stack
from .test_governance_cards import card
from .test_governance_identities import group
from .test_governance_service import ON_PROD, audited, see

DEPLOY, MOVE = approval_pb2.GATED_ACTION_DEPLOY, approval_pb2.GATED_ACTION_MOVE_ALIAS
VERSION = IRIS_1.name
EVIDENCE = {
    "accurate": "metrics.accuracy >= 0.9",
    "tests passed": "tests.passed",
    "scanned": "scan.clean",
    "signed by the lab": "signatures.exists(s, s.trusted && s.trust_root == 'lab')",
    "known data": "lineage.present && 's3://lake/iris' in lineage.datasets",
    "gold": "'stage' in tags && tags.stage == 'gold'",
    "described": "card.present && card.completeness > 0.0",
}


@pytest.fixture
async def running_stack(fresh_database: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Stack]:
    async with stack(fresh_database("modelyard_governance"), tmp_path) as started:
        started.catalog.author_id = "somebody"
        yield started


async def policy(admin: Caller, conditions: dict[str, str] | None = None, **more: Any) -> Any:
    wanted: dict[str, Any] = {
        "required_approvals": 1,
        "protect_deployments": True,
        "protected_aliases": ["champion"],
        "conditions": [{"name": name, "expression": text} for name, text in (conditions or {}).items()],
    }
    return (await admin("SetApprovalPolicy", policy={**wanted, **more}, **ON_PROD)).policy


async def ask(stack: Stack, action: Any = DEPLOY, *aliases: str) -> Any:
    """Ask the gate as the catalog and inference do."""
    service = await stack.login(stack.secret("catalog"))
    chain = chain_to_proto((IRIS_1, IRIS, ML, PROD, SYSTEM))
    return await service(
        "EvaluateGate", model_version=chain, author_id="somebody", action=action, aliases=aliases
    )


async def explain(caller: Caller, action: Any = DEPLOY, *aliases: str) -> Any:
    answer = await caller("ExplainGate", model_version=VERSION, action=action, aliases=aliases)
    return answer.explanation


async def approve(caller: Caller) -> None:
    await caller("ReviewVersion", model_version=VERSION, decision="DECISION_APPROVE")


class TestApprovers:
    async def test_only_members_of_the_group_count_now(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await group(admin, "leads")
        await group(admin, "reviewers", "leads")
        made = await policy(admin, approver_group="reviewers")
        assert made.approver_group == "reviewers"
        await see(admin, "ada", "APPROVE")
        await approve(ada)
        wanted = "needs 1 approval by members of 'reviewers' other than the author; has 0"
        assert list((await ask(running_stack)).unmet) == [wanted]
        await admin("AddGroupMember", group="leads", member="ada")
        assert (await ask(running_stack)).allowed
        await self.told(running_stack, admin, "STATE_APPROVED")
        await admin("RemoveGroupMember", group="leads", member="ada")
        assert not (await ask(running_stack)).allowed
        await self.told(running_stack, admin, "STATE_PENDING")

    async def told(self, running_stack: Stack, admin: Caller, state: str) -> None:
        """Wait until lists and the catalog know."""

        async def known() -> bool:
            (row,) = (await admin("ListApprovals")).approvals
            listed = approval_pb2.Approval.State.Name(row.state) == state
            told = running_stack.catalog.told
            return listed and bool(told) and told[-1][1] == state.removeprefix("STATE_")

        await eventually(known)

    async def test_the_group_must_be_one(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        with pytest.raises(InvalidField, match=r"policy\.approver_group"):
            await policy(admin, approver_group="admin")
        with pytest.raises(NotFound, match="nobody"):
            await policy(admin, approver_group="nobody")

    async def test_approvals_expire_everywhere(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await policy(admin, approval_lifetime=Duration(seconds=3600))
        await approve(admin)
        assert (await ask(running_stack)).allowed
        await self.told(running_stack, admin, "STATE_APPROVED")
        connection = await asyncpg.connect(running_stack.settings.database)
        await connection.execute("UPDATE reviews SET create_time = create_time - interval '1 hour'")
        await connection.execute("UPDATE standings SET expire_time = expire_time - interval '1 hour'")
        await connection.close()
        assert not (await ask(running_stack)).allowed
        await self.told(running_stack, admin, "STATE_PENDING")
        with pytest.raises(InvalidField, match="approval_lifetime"):
            await policy(admin, approval_lifetime=Duration(seconds=-1))


class TestEvidence:
    async def test_a_refusal_names_every_unmet_condition(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await policy(admin, EVIDENCE)
        answer = await ask(running_stack)
        assert not answer.allowed
        assert [text.partition(":")[0] for text in answer.unmet] == [
            "needs 1 approval by somebody other than the author; has 0",
            *EVIDENCE,
        ]
        assert "accurate: metrics.accuracy >= 0.9: there is no accuracy" in answer.unmet

    async def test_it_is_allowed_once_all_is_true(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await policy(admin, EVIDENCE)
        await approve(admin)
        running_stack.catalog.metrics = {"accuracy": 0.93}
        running_stack.catalog.tags = {"stage": "gold"}
        running_stack.catalog.datasets = ["s3://lake/iris"]
        running_stack.artifact.inspection = Inspection(
            state=Inspection.STATE_DONE,
            scan=Inspection.SCAN_CLEAN,
            tests=[IntrospectionTest(id="score_py", result=IntrospectionTest.RESULT_PASSED)],
        )
        trusted = Signature(signer="CN=lab", trust=Signature.TRUST_TRUSTED, trust_root="lab")
        running_stack.artifact.signatures = [trusted]
        assert [text.partition(":")[0] for text in (await ask(running_stack)).unmet] == ["described"]
        await admin("SetModelCard", model_version=VERSION, content=card(risk_rating="Low"))
        assert (await ask(running_stack)).allowed
        assert (await ask(running_stack, MOVE, "champion")).allowed
        trusted.trust = Signature.TRUST_NO_LONGER
        assert [text.partition(":")[0] for text in (await ask(running_stack)).unmet] == ["signed by the lab"]

    async def test_what_is_not_held_back_asks_nobody(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await policy(admin, EVIDENCE)
        running_stack.artifact.away = True
        assert (await ask(running_stack, MOVE, "challenger")).allowed
        with pytest.raises(PeerUnavailable):
            await ask(running_stack, MOVE, "champion")

    async def test_an_explanation_shows_conditions_and_facts(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await see(admin, "ada", "READ_METADATA")
        await policy(admin, {"accurate": EVIDENCE["accurate"]})
        running_stack.catalog.metrics = {"accuracy": 0.93}
        found = await explain(ada)
        assert (found.allowed, found.gated) == (False, True)
        assert [(one.name, one.met) for one in found.conditions] == [
            ("needs 1 approval by somebody other than the author; has 0", False),
            ("accurate", True),
        ]
        assert found.facts["metrics"]["accuracy"] == 0.93
        assert found.facts["approvals"]["required"] == 1
        assert found.policy.conditions[0].expression == EVIDENCE["accurate"]
        free = await explain(ada, MOVE, "challenger")
        assert (free.allowed, free.gated, list(free.conditions)) == (True, False, [])

    @pytest.mark.parametrize("expression", ["1 +", "nothing.here", "", "'\0' == ''"])
    async def test_bad_expressions_are_refused_when_the_policy_is_set(
        self, running_stack: Stack, expression: str
    ) -> None:
        with pytest.raises(InvalidField, match=r"policy\.conditions\[0\]\.expression"):
            await policy(await running_stack.admin(), {"it": expression})

    async def test_policies_have_bounds(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        many = LIMITS["conditions_per_policy"].maximum
        await policy(admin, {str(number): "true" for number in range(many)})
        with pytest.raises(LimitExceeded, match="conditions_per_policy"):
            await policy(admin, {str(number): "true" for number in range(many + 1)})
        length = LIMITS["condition_length"].maximum
        await policy(admin, {"long": "true" + " " * (length - 4)})
        with pytest.raises(LimitExceeded, match="condition_length"):
            await policy(admin, {"long": "true" + " " * (length - 3)})


class TestOverrides:
    async def test_an_override_lets_pass_and_is_remembered(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await policy(admin)
        assert not (await ask(running_stack)).allowed
        made = await admin("OverrideGate", model_version=VERSION, action=DEPLOY, reason="outage 17")
        assert (made.override.principal, made.override.reason) == ("admin", "outage 17")
        assert made.override.expire_time.seconds - made.override.create_time.seconds == 3600
        assert (await ask(running_stack)).allowed
        assert not (await ask(running_stack, MOVE, "champion")).allowed  # that is another gate
        found = await explain(admin)
        assert (found.allowed, found.override) == (True, made.override)
        assert not found.conditions[0].met
        entries = await audited(admin, "governance.gate.overridden", "governance.gate.override_used")
        used = next(e.event for e in entries if e.event.type == "governance.gate.override_used")
        assert (used.actor_name, used.data["by"], used.data["reason"]) == ("catalog", "admin", "outage 17")
        assert used.resource.id == IRIS_1.id

    async def test_it_counts_for_its_aliases_and_its_time_alone(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        await policy(admin, protected_aliases=["*"])
        await admin(
            "OverrideGate",
            model_version=VERSION,
            action=MOVE,
            aliases=["a", "b"],
            reason="now",
            lifetime=Duration(seconds=60),
        )
        assert (await ask(running_stack, MOVE, "a")).allowed
        assert (await ask(running_stack, MOVE, "b", "a")).allowed
        assert not (await ask(running_stack, MOVE, "a", "c")).allowed
        connection = await asyncpg.connect(running_stack.settings.database)
        await connection.execute("UPDATE gate_overrides SET expire_time = now()")
        await connection.close()
        assert not (await ask(running_stack, MOVE, "a")).allowed

    async def test_it_needs_manage_a_reason_and_an_end(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        await see(admin, "ada", "APPROVE", "EDIT", "DEPLOY", "READ_METADATA")
        wanted = {"model_version": VERSION, "action": DEPLOY, "reason": "why not"}
        with pytest.raises(PermissionDenied) as refusal:
            await ada("OverrideGate", **wanted)
        assert refusal.value.metadata["privilege"] == "MANAGE"
        for field, value in (
            ("reason", " "),
            ("lifetime", Duration(seconds=90_000)),
            ("lifetime", Duration()),
        ):
            with pytest.raises(InvalidField, match=field):
                await admin("OverrideGate", **{**wanted, field: value})
        for _ in range(LIMITS["gate_overrides"].maximum):
            await admin("OverrideGate", **wanted)
        with pytest.raises(LimitExceeded, match="gate_overrides"):
            await admin("OverrideGate", **wanted)


class TestPolicies:
    async def test_every_policy_is_listed_for_managers(self, running_stack: Stack) -> None:
        admin = await running_stack.admin()
        ada = await running_stack.user("ada", admin)
        first = await policy(admin, {"gold": EVIDENCE["gold"]})
        on_model = {"resource_type": "RESOURCE_TYPE_MODEL", "resource": IRIS.name}
        second = (await admin("SetApprovalPolicy", policy={"required_approvals": 2}, **on_model)).policy
        assert list((await admin("ListPolicies")).policies) == [first, second]
        page = await admin("ListPolicies", page_size=1)
        rest = await admin("ListPolicies", page_size=1, page_token=page.next_page_token)
        assert [*page.policies, *rest.policies] == [first, second]
        strict = await admin("ListPolicies", filter="required_approvals > 1 AND resource_type = 'model'")
        assert list(strict.policies) == [second]
        with pytest.raises(PermissionDenied):
            await ada("ListPolicies")
