"""Which privilege each RPC needs, on which resource of its request."""

from __future__ import annotations

from typing import Any

from modelyard_inference.lookups import Lookups
from modelyard_inference.messages import parse_deployment_name, parse_schema_of
from modelyard_kit.access import Chain, Privilege
from modelyard_kit.authorization import AUTHENTICATED, SERVICES, AccessTable, Requires


def access_table(lookups: Lookups) -> AccessTable:
    """Return the rule of every RPC of the inference service."""

    async def schema(request: Any) -> Chain:
        return await lookups.schema_access_chain(parse_schema_of(request.deployment.name))

    async def changed(request: Any) -> Chain:
        return await lookups.access_chain(parse_deployment_name(request.deployment.name, "deployment.name"))

    async def named(request: Any) -> Chain:
        return await lookups.access_chain(parse_deployment_name(request.name))

    async def of_deployment(request: Any) -> Chain:
        return await lookups.access_chain(parse_deployment_name(request.deployment, "deployment"))

    return {
        "CreateDeployment": Requires(Privilege.DEPLOY, schema),
        "GetDeployment": Requires(Privilege.READ_METADATA, named),
        "ListDeployments": AUTHENTICATED,  # the query shows only what the caller may see
        "WatchDeployment": Requires(Privilege.READ_METADATA, named, endless=True),
        "UpdateDeployment": Requires(Privilege.DEPLOY, changed),
        "RollbackDeployment": Requires(Privilege.DEPLOY, named),
        "ListDeploymentRevisions": Requires(Privilege.READ_METADATA, of_deployment),
        "ActivateDeployment": Requires(Privilege.DEPLOY, named),
        "DeactivateDeployment": Requires(Privilege.DEPLOY, named),
        "ControlRollout": Requires(Privilege.DEPLOY, named),
        "DeleteDeployment": Requires(Privilege.DEPLOY, named),
        "ListReplicas": Requires(Privilege.READ_METADATA, of_deployment),
        "GetDeploymentStatistics": Requires(Privilege.READ_METADATA, of_deployment),
        # Not READ_METADATA: what models print may be what others sent them.
        "ReadReplicaLogs": Requires(Privilege.DEPLOY, of_deployment, endless=True),
        "ResolveResource": SERVICES,
        "FindDeployments": SERVICES,
        "WatchRoutes": SERVICES,
        "ConfirmRoutes": SERVICES,
    }
