"""Which privilege each RPC needs, on which resource of its request."""

from __future__ import annotations

from typing import Any

from modelyard_inference.deployments import Deployments
from modelyard_inference.messages import parse_deployment_name, parse_schema_of
from modelyard_kit.access import AUTHENTICATED, SERVICES, AccessTable, Chain, Privilege, Requires


def access_table(deployments: Deployments) -> AccessTable:
    """Return the rule of every RPC of the inference service."""

    async def schema(request: Any) -> Chain:
        return await deployments.schema_access_chain(parse_schema_of(request.deployment.name))

    async def changed(request: Any) -> Chain:
        return await deployments.access_chain(
            parse_deployment_name(request.deployment.name, "deployment.name")
        )

    async def named(request: Any) -> Chain:
        return await deployments.access_chain(parse_deployment_name(request.name))

    async def of_replicas(request: Any) -> Chain:
        return await deployments.access_chain(parse_deployment_name(request.deployment, "deployment"))

    return {
        "CreateDeployment": Requires(Privilege.DEPLOY, schema),
        "GetDeployment": Requires(Privilege.READ_METADATA, named),
        "ListDeployments": AUTHENTICATED,  # the query shows only what the caller may see
        "UpdateDeployment": Requires(Privilege.DEPLOY, changed),
        "ActivateDeployment": Requires(Privilege.DEPLOY, named),
        "DeactivateDeployment": Requires(Privilege.DEPLOY, named),
        "DeleteDeployment": Requires(Privilege.DEPLOY, named),
        "ListReplicas": Requires(Privilege.READ_METADATA, of_replicas),
        "ResolveResource": SERVICES,
        "FindDeployments": SERVICES,
        "WatchRoutes": SERVICES,
        "ConfirmRoutes": SERVICES,
    }
