"""Deployments, groups, replicas and routes in PostgreSQL. Every method runs in the caller's transaction and never commits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import rows as r
from modelyard_inference import shadow_rows
from modelyard_inference import tables as t
from modelyard_inference.evidence import Evidence, SignatureState, Verdict, least
from modelyard_inference.fields import DEPLOYMENTS, REPLICAS
from modelyard_inference.models import (
    ROUTED_STATES,
    Condition,
    Deployment,
    DeploymentState,
    Group,
    GroupState,
    Replica,
    ReplicaState,
    Target,
)
from modelyard_inference.route_table import RouteTable
from modelyard_kit.access import Link, Scope
from modelyard_kit.filters import Asked, PrincipalIds, fetch, nobody, permitted
from modelyard_kit.prepared import Prepared

_TABLE_VERSION = Prepared(sa.select(t.route_table.c.version))


@dataclass(frozen=True)
class World:
    """Everything the reconciler decides from, of one moment."""

    deployments: tuple[Deployment, ...]
    groups: tuple[Group, ...]
    replicas: tuple[Replica, ...]
    table_version: int


@dataclass(frozen=True)
class Visible:
    """What a caller may see in a list: the privilege itself, and the reach into schema and catalog that it needs."""

    read: Scope
    use_schema: Scope
    use_catalog: Scope


class InferenceStore:
    """Reads and writes of the inference service's tables.

    Args:
        activator: address that gateways send the predictions of a group to while it has no replica.
    """

    def __init__(self, activator: str = "") -> None:
        self._activator = activator

    # ---- deployments

    async def deployment(self, connection: AsyncConnection, name: str) -> Deployment | None:
        """Return the deployment with this name."""
        return await self._one(connection, t.deployments.c.name == name)

    async def deployment_by_id(self, connection: AsyncConnection, deployment_id: str) -> Deployment | None:
        """Return the deployment with this id."""
        return await self._one(connection, t.deployments.c.id == deployment_id)

    async def page(
        self,
        connection: AsyncConnection,
        asked: Asked,
        *,
        schema_id: str,
        visible: Visible,
        principals: PrincipalIds = nobody,
    ) -> tuple[list[Deployment], str]:
        """Return a page of visible deployments, of one schema or of all, and the token of the next one."""
        c = t.deployments.c
        query = sa.select(t.deployments).where(
            permitted(
                visible.read,
                (c.id, c.schema_id, c.catalog_id),
                (c.owner_id, c.schema_owner_id, c.catalog_owner_id),
            ),
            permitted(
                visible.use_schema, (c.schema_id, c.catalog_id), (c.schema_owner_id, c.catalog_owner_id)
            ),
            permitted(visible.use_catalog, (c.catalog_id,), (c.catalog_owner_id,)),
        )
        if schema_id:
            query = query.where(c.schema_id == schema_id)
        rows, token = await fetch(
            connection, query, asked, DEPLOYMENTS, scope=schema_id, principals=principals
        )
        return await self._complete(connection, rows), token

    async def using(self, connection: AsyncConnection, version_ids: Sequence[str]) -> list[Deployment]:
        """Return the deployments that want, or have a group of, any of the versions, by name."""
        wanted = sa.select(t.targets.c.deployment_id).where(
            t.targets.c.wanted["id"].astext == sa.any_(sa.cast(version_ids, ARRAY(sa.Text)))
        )
        running = sa.select(t.groups.c.deployment_id).where(
            t.groups.c.version["id"].astext == sa.any_(sa.cast(version_ids, ARRAY(sa.Text)))
        )
        query = sa.select(t.deployments).where(t.deployments.c.id.in_(wanted.union(running)))
        return await self._deployments(connection, query.order_by(t.deployments.c.name))

    async def insert_deployment(self, connection: AsyncConnection, deployment: Deployment) -> None:
        """Write a new deployment with its targets."""
        await connection.execute(sa.insert(t.deployments).values(**r.deployment_row(deployment)))
        await self.replace_targets(connection, deployment.id, deployment.targets)

    async def update_deployment(self, connection: AsyncConnection, deployment: Deployment) -> None:
        """Write every column of a deployment; its targets stay."""
        statement = sa.update(t.deployments).where(t.deployments.c.id == deployment.id)
        await connection.execute(statement.values(**r.deployment_row(deployment)))

    async def set_state(
        self,
        connection: AsyncConnection,
        deployment: Deployment,
        state: DeploymentState,
        message: str,
        conditions: Sequence[Condition],
    ) -> bool:
        """Tell callers a state and its conditions, unless one has changed the deployment meanwhile; return whether it was written."""
        c = t.deployments.c
        statement = sa.update(t.deployments).where(c.id == deployment.id, c.revision == deployment.revision)
        told = {"state": state, "state_message": message, "conditions": r.plain_conditions(conditions)}
        result = await connection.execute(statement.values(told))
        return result.rowcount > 0

    async def set_containers(self, connection: AsyncConnection, schema: Link, catalog: Link) -> list[str]:
        """Note catalog and owners of a schema in its deployments, and return the ids of those where that is new."""
        c = t.deployments.c
        values = {
            "schema_owner_id": schema.owner_id,
            "catalog_id": catalog.id,
            "catalog_owner_id": catalog.owner_id,
        }
        differs = sa.or_(*(c[name] != value for name, value in values.items()))
        statement = sa.update(t.deployments).where(c.schema_id == schema.id, differs).values(values)
        return list((await connection.execute(statement.returning(c.id))).scalars())

    async def delete_deployment(self, connection: AsyncConnection, deployment_id: str) -> None:
        """Forget a deployment that has no group left."""
        await connection.execute(sa.delete(t.deployments).where(t.deployments.c.id == deployment_id))

    async def replace_targets(
        self, connection: AsyncConnection, deployment_id: str, targets: Iterable[Target]
    ) -> None:
        """Write all targets of a deployment anew."""
        await connection.execute(sa.delete(t.targets).where(t.targets.c.deployment_id == deployment_id))
        rows = [
            {
                "deployment_id": deployment_id,
                "position": position,
                "reference": target.spec.reference,
                "model": target.spec.model,
                "follows": target.spec.follows,
                "weight": target.spec.weight,
                "shadow_percent": target.spec.shadow_percent,
                "wanted": asdict(target.wanted),
                "problem": target.problem,
                "serving": target.serving,
                "serving_digest": target.serving_digest,
                "serving_weight": target.serving_weight,
            }
            for position, target in enumerate(targets)
        ]
        await connection.execute(sa.insert(t.targets), rows)

    # ---- groups and replicas

    async def world(self, connection: AsyncConnection) -> World:
        """Return everything."""
        deployments = await self._deployments(
            connection, sa.select(t.deployments).order_by(t.deployments.c.id)
        )
        groups = (await connection.execute(sa.select(t.groups).order_by(t.groups.c.id))).mappings()
        replicas = (await connection.execute(sa.select(t.replicas).order_by(t.replicas.c.id))).mappings()
        return World(
            tuple(deployments),
            tuple(map(r.group, groups)),
            tuple(map(r.replica, replicas)),
            await self.table_version(connection),
        )

    async def groups(self, connection: AsyncConnection, deployment_id: str) -> list[Group]:
        """Return the groups of a deployment, oldest first."""
        query = sa.select(t.groups).where(t.groups.c.deployment_id == deployment_id).order_by(t.groups.c.id)
        return list(map(r.group, (await connection.execute(query)).mappings()))

    async def group(self, connection: AsyncConnection, group_id: str) -> Group | None:
        """Return the group with this id."""
        query = sa.select(t.groups).where(t.groups.c.id == group_id)
        row = (await connection.execute(query)).mappings().one_or_none()
        return r.group(row) if row else None

    async def insert_group(self, connection: AsyncConnection, group: Group) -> None:
        """Write a new group."""
        await connection.execute(sa.insert(t.groups).values(**r.group_row(group)))

    async def set_group(
        self,
        connection: AsyncConnection,
        group_id: str,
        state: GroupState,
        *,
        weight: int,
        table_version: int,
    ) -> None:
        """Write state and weight of a group and the table in which they appear."""
        statement = sa.update(t.groups).where(t.groups.c.id == group_id)
        await connection.execute(statement.values(state=state, weight=weight, table_version=table_version))

    async def delete_group(self, connection: AsyncConnection, group_id: str) -> None:
        """Forget a group that has no replica left, and evidence about versions that nothing runs any more."""
        await connection.execute(sa.delete(t.groups).where(t.groups.c.id == group_id))
        running = sa.select(t.groups.c.version["id"].astext)
        unused = t.signature_evidence.c.version_id.not_in(running)
        await connection.execute(sa.delete(t.signature_evidence).where(unused))

    async def evidence(self, connection: AsyncConnection, version_id: str) -> Evidence | None:
        """Return what was last found out about the signatures of a version.

        Raises:
            ValueError: it was written by another release.
        """
        c = t.signature_evidence.c
        found = await connection.execute(sa.select(c.content).where(c.version_id == version_id))
        content = found.scalar_one_or_none()
        return None if content is None else Evidence.from_json(content)

    async def keep_evidence(self, connection: AsyncConnection, version_id: str, evidence: Evidence) -> None:
        """Write what was found out about the signatures of a version."""
        row = {"version_id": version_id, "content": evidence.to_json()}
        statement = upsert(t.signature_evidence).values(row)
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["version_id"], set_={"content": row["content"]})
        )

    async def page_of_replicas(
        self, connection: AsyncConnection, asked: Asked, deployment_id: str
    ) -> tuple[list[Replica], str]:
        """Return a page of the replicas of a deployment and the token of the next one."""
        query = (
            sa.select(t.replicas)
            .join(t.groups, t.replicas.c.group_id == t.groups.c.id)
            .where(t.replicas.c.deployment_id == deployment_id)
        )
        rows, token = await fetch(connection, query, asked, REPLICAS, scope=deployment_id)
        return list(map(r.replica, rows)), token

    async def insert_replicas(self, connection: AsyncConnection, replicas: Sequence[Replica]) -> None:
        """Write new replicas."""
        if replicas:
            await connection.execute(sa.insert(t.replicas), [dict(vars(replica)) for replica in replicas])

    async def next_ordinal(self, connection: AsyncConnection, group_id: str) -> int:
        """Return the ordinal of the next replica of a group."""
        query = sa.select(sa.func.coalesce(sa.func.max(t.replicas.c.ordinal) + 1, 0))
        return int((await connection.execute(query.where(t.replicas.c.group_id == group_id))).scalar_one())

    async def change_replica(self, connection: AsyncConnection, replica_id: str, **values: Any) -> None:
        """Write columns of a replica."""
        await connection.execute(sa.update(t.replicas).where(t.replicas.c.id == replica_id).values(**values))

    async def end_replica(self, connection: AsyncConnection, replica: Replica, **values: Any) -> bool:
        """Write columns of a replica whose process is gone, unless it is not as it was found; return whether it was written."""
        c = t.replicas.c
        same = (c.id == replica.id, c.process_id == replica.process_id, c.state == replica.state)
        result = await connection.execute(sa.update(t.replicas).where(*same).values(**values))
        return result.rowcount > 0

    async def try_again(self, connection: AsyncConnection, deployment_id: str) -> None:
        """Forget how replicas of a deployment ended that are not ready, so that they start at once as if for the first time."""
        c = t.replicas.c
        statement = sa.update(t.replicas).where(
            c.deployment_id == deployment_id, c.state.not_in((ReplicaState.READY, ReplicaState.DRAINING))
        )
        looping = c.state == ReplicaState.CRASH_LOOP
        stopped = sa.case((looping, ReplicaState.STOPPED.value), else_=c.state)
        await connection.execute(statement.values(message="", failures=0, not_before=None, state=stopped))

    async def route_replicas(
        self, connection: AsyncConnection, replica_ids: Collection[str], *, table_version: int
    ) -> None:
        """Note that gateways learn of these replicas in a table."""
        statement = sa.update(t.replicas).where(t.replicas.c.id.in_(replica_ids))
        await connection.execute(statement.values(routed=True, table_version=table_version))

    async def drain_replicas(
        self, connection: AsyncConnection, replica_ids: Collection[str], *, table_version: int
    ) -> None:
        """Note that gateways forget these replicas in a table."""
        statement = sa.update(t.replicas).where(t.replicas.c.id.in_(replica_ids))
        await connection.execute(
            statement.values(routed=False, state=ReplicaState.DRAINING, table_version=table_version)
        )

    async def delete_replica(self, connection: AsyncConnection, replica_id: str) -> None:
        """Forget a replica."""
        await connection.execute(sa.delete(t.replicas).where(t.replicas.c.id == replica_id))

    # ---- routes

    async def table_version(self, connection: AsyncConnection) -> int:
        """Return the version of the route table."""
        [row] = await _TABLE_VERSION.execute(connection, {})
        return int(row.version)

    async def next_table(self, connection: AsyncConnection) -> int:
        """Begin a new route table in this transaction and return its version."""
        statement = sa.update(t.route_table).values(version=t.route_table.c.version + 1)
        return int((await connection.execute(statement.returning(t.route_table.c.version))).scalar_one())

    async def route_changed(self, connection: AsyncConnection, deployment_id: str) -> None:
        """Begin a new route table because a deployment's route changed beside its targets; its groups are in it anew."""
        table = await self.next_table(connection)
        c = t.groups.c
        statement = sa.update(t.groups).where(c.deployment_id == deployment_id, c.state.in_(ROUTED_STATES))
        await connection.execute(statement.values(table_version=table))

    async def routes(self, connection: AsyncConnection) -> RouteTable:
        """Return the route table; it follows from the rows alone, so it is the same after a restart."""
        world = await self.world(connection)
        routes = r.routes(world.deployments, world.groups, world.replicas, self._activator)
        return RouteTable(world.table_version, routes)

    # ---- helpers

    async def _one(self, connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> Deployment | None:
        found = await self._deployments(connection, sa.select(t.deployments).where(condition))
        return found[0] if found else None

    async def _deployments(self, connection: AsyncConnection, query: sa.Select[Any]) -> list[Deployment]:
        return await self._complete(connection, (await connection.execute(query)).mappings().all())

    async def _complete(self, connection: AsyncConnection, rows: Sequence[sa.RowMapping]) -> list[Deployment]:
        """Return the deployments of rows, with their targets and ready replicas."""
        if not rows:
            return []
        ids = [row["id"] for row in rows]
        targets = await self._targets(connection, ids)
        verdicts = await self._verdicts(connection, ids)
        shadowed = [key for key, found in targets.items() if any(target.spec.shadow for target in found)]
        counts = await shadow_rows.counts_of(connection, shadowed) if shadowed else {}
        return [
            replace(
                r.deployment(row),
                targets=tuple(targets[row["id"]]),
                ready={name: len(found) for name, found in verdicts[row["id"]].items()},
                verdicts={name: least(found) for name, found in verdicts[row["id"]].items() if any(found)},
                shadow_counts=counts.get(row["id"]),
            )
            for row in rows
        ]

    async def _targets(self, connection: AsyncConnection, ids: Sequence[str]) -> Mapping[str, list[Target]]:
        c = t.targets.c
        query = sa.select(t.targets).where(c.deployment_id.in_(ids)).order_by(c.deployment_id, c.position)
        found: dict[str, list[Target]] = defaultdict(list)
        for row in (await connection.execute(query)).mappings():
            found[row["deployment_id"]].append(r.target(row))
        return found

    async def _verdicts(
        self, connection: AsyncConnection, ids: Sequence[str]
    ) -> Mapping[str, Mapping[str, list[Verdict | None]]]:
        """Return what every ready replica that answers found about signatures, by deployment and name of the version."""
        name = t.groups.c.version["name"].astext.label("version")
        c = t.replicas.c
        query = (
            sa.select(t.groups.c.deployment_id, name, c.signature_state, c.signer, c.trust_root)
            .join(t.replicas, c.group_id == t.groups.c.id)
            .where(
                t.groups.c.deployment_id.in_(ids),
                t.groups.c.state == GroupState.SERVING,
                c.state == ReplicaState.READY,
            )
        )
        found: dict[str, dict[str, list[Verdict | None]]] = defaultdict(lambda: defaultdict(list))
        for row in await connection.execute(query):
            verdict = None
            if row.signature_state:
                verdict = Verdict(SignatureState(row.signature_state), row.signer, row.trust_root)
            found[row.deployment_id][row.version].append(verdict)
        return found
