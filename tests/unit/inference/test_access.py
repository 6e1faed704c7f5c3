"""Every RPC has a rule, and each rule looks at the resource of its request."""

from __future__ import annotations

from typing import Any, cast

import pytest

from modelyard.api.inference.v1 import inference_service_pb2 as s
from modelyard.api.inference.v1.deployment_pb2 import Deployment
from modelyard_inference.access import access_table
from modelyard_inference.app import FULL_NAME
from modelyard_kit.access import SYSTEM, Chain, Privilege
from modelyard_kit.authorization import AUTHENTICATED, SERVICES, Requires
from modelyard_kit.errors import InvalidField


class Chains:
    """Stands in for the rules: says what was asked for."""

    async def access_chain(self, name: str) -> Any:
        return ("deployment", name)

    async def schema_access_chain(self, schema: str) -> Any:
        return ("schema", schema)


TABLE = access_table(cast("Any", Chains()))


def test_every_rpc_has_a_rule() -> None:
    service = s.DESCRIPTOR.services_by_name["InferenceService"]
    assert service.full_name == FULL_NAME
    assert set(TABLE) == {method.name for method in service.methods}


@pytest.mark.parametrize(
    ("rpc", "request_", "privilege", "resource"),
    [
        (
            "CreateDeployment",
            s.CreateDeploymentRequest(deployment=Deployment(name="a.b.c")),
            Privilege.DEPLOY,
            ("schema", "a.b"),
        ),
        (
            "UpdateDeployment",
            s.UpdateDeploymentRequest(deployment=Deployment(name="a.b.c")),
            Privilege.DEPLOY,
            ("deployment", "a.b.c"),
        ),
        (
            "DeleteDeployment",
            s.DeleteDeploymentRequest(name="a.b.c"),
            Privilege.DEPLOY,
            ("deployment", "a.b.c"),
        ),
        (
            "ActivateDeployment",
            s.ActivateDeploymentRequest(name="a.b.c"),
            Privilege.DEPLOY,
            ("deployment", "a.b.c"),
        ),
        (
            "DeactivateDeployment",
            s.DeactivateDeploymentRequest(name="a.b.c"),
            Privilege.DEPLOY,
            ("deployment", "a.b.c"),
        ),
        (
            "GetDeployment",
            s.GetDeploymentRequest(name="a.b.c"),
            Privilege.READ_METADATA,
            ("deployment", "a.b.c"),
        ),
        (
            "ListReplicas",
            s.ListReplicasRequest(deployment="a.b.c"),
            Privilege.READ_METADATA,
            ("deployment", "a.b.c"),
        ),
    ],
)
async def test_rule(rpc: str, request_: Any, privilege: Privilege, resource: Chain) -> None:
    rule = TABLE[rpc]
    assert isinstance(rule, Requires)
    assert rule.privilege is privilege
    assert await rule.resolve(request_) == resource


@pytest.mark.parametrize("rpc", ["ResolveResource", "FindDeployments", "WatchRoutes", "ConfirmRoutes"])
def test_only_services_may(rpc: str) -> None:
    assert TABLE[rpc] is SERVICES


def test_list_is_filtered_in_the_query() -> None:
    assert TABLE["ListDeployments"] is AUTHENTICATED


async def test_malformed_name_is_named_before_anything_is_asked() -> None:
    rule = TABLE["GetDeployment"]
    assert isinstance(rule, Requires)
    with pytest.raises(InvalidField):
        await rule.resolve(s.GetDeploymentRequest(name="a"))
    assert SYSTEM.name == ""
