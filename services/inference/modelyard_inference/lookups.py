"""What callers may read of deployments."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_inference import errors, history
from modelyard_inference.commands import ListDeployments, ListReplicas, ListRevisions
from modelyard_inference.models import Deployment, Group, Replica, Revision
from modelyard_inference.ports import Upstream
from modelyard_inference.store import InferenceStore, Visible
from modelyard_kit.access import Chain, Link, Privilege
from modelyard_kit.auth import Call, Principal
from modelyard_kit.authorization import Missing
from modelyard_kit.db import Database
from modelyard_kit.errors import NotFound
from modelyard_kit.grants import Grants


class Lookups:
    """Reads deployments, their replicas and their history.

    Args:
        db: the database.
        store: its tables.
        upstream: catalog and governance.
        grants: what principals may do.
    """

    def __init__(self, db: Database, store: InferenceStore, upstream: Upstream, grants: Grants) -> None:
        self._db = db
        self._store = store
        self._upstream = upstream
        self._grants = grants

    async def get(self, name: str) -> Deployment:
        """Return a deployment.

        Raises:
            NotFound: there is none of that name.
        """
        found = await self._db.read(lambda connection: self._store.deployment(connection, name))
        if found is None:
            raise errors.no_deployment(name)
        return found

    async def page(self, call: Call, command: ListDeployments) -> tuple[list[Deployment], str]:
        """Return a page of the deployments that the caller may see, and the token of the next one.

        Raises:
            NotFound: the schema does not exist.
            PermissionDenied: the caller lacks USE_SCHEMA on the schema.
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """
        schema_id = await self._usable_schema(call.principal, command.schema) if command.schema else ""
        caller = call.principal.id
        visible = Visible(
            self._grants.scope(caller, Privilege.READ_METADATA),
            self._grants.scope(caller, Privilege.USE_SCHEMA),
            self._grants.scope(caller, Privilege.USE_CATALOG),
        )
        return await self._db.read(
            lambda connection: self._store.page(
                connection,
                command.asked,
                schema_id=schema_id,
                visible=visible,
                principals=self._grants.id_of,
            )
        )

    async def replicas(self, command: ListReplicas) -> tuple[list[tuple[Deployment, Replica, Group]], str]:
        """Return a page of the replicas of a deployment, each with it and its group, and the token of the next one.

        Raises:
            NotFound: there is no deployment of that name.
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """

        async def work(connection: AsyncConnection) -> tuple[list[tuple[Deployment, Replica, Group]], str]:
            found = await self._store.deployment(connection, command.deployment)
            if found is None:
                raise errors.no_deployment(command.deployment)
            groups = {group.id: group for group in await self._store.groups(connection, found.id)}
            replicas, token = await self._store.page_of_replicas(connection, command.asked, found.id)
            return [(found, replica, groups[replica.group_id]) for replica in replicas], token

        return await self._db.read(work)

    async def using(self, version_ids: Sequence[str]) -> list[Link]:
        """Return the deployments that run or will run any of some versions, by name.

        Those that are being deleted count for as long as a replica of the version is there.
        """
        found = await self._db.read(lambda connection: self._store.using(connection, version_ids))
        return [deployment.chain[0] for deployment in found]

    async def chain(self, *, name: str = "", deployment_id: str = "") -> Chain:
        """Return the chain of a deployment by name or id.

        Raises:
            NotFound: there is none.
        """
        if name:
            return (await self.get(name)).chain
        found = await self._db.read(
            lambda connection: self._store.deployment_by_id(connection, deployment_id)
        )
        if found is None:
            raise errors.no_deployment(deployment_id)
        return found.chain

    async def access_chain(self, name: str) -> Chain:
        """Return the chain of a deployment to decide a privilege on.

        Raises:
            Missing: there is none; holds the chain of the nearest container that exists.
        """
        try:
            return await self.chain(name=name)
        except NotFound as error:
            raise Missing(error, await self._upstream.nearest_chain(name.rpartition(".")[0])) from error

    async def schema_access_chain(self, schema: str) -> Chain:
        """Return the chain of a schema to decide a privilege on.

        Raises:
            Missing: there is none; holds the chain of the nearest container that exists.
        """
        try:
            return await self._upstream.schema_chain(schema)
        except NotFound as error:
            raise Missing(error, await self._upstream.nearest_chain(schema)) from error

    async def revisions(self, command: ListRevisions) -> tuple[Deployment, list[Revision], str]:
        """Return a deployment, a page of its history, and the token of the next one.

        Raises:
            NotFound: there is no deployment of that name.
            InvalidField: filter, order_by or page_token has a mistake.
            LimitExceeded: filter or order_by is too large.
        """

        async def work(connection: AsyncConnection) -> tuple[Deployment, list[Revision], str]:
            found = await self._store.deployment(connection, command.deployment)
            if found is None:
                raise errors.no_deployment(command.deployment)
            rows, token = await history.page(connection, command.asked, found.id, self._grants.id_of)
            return found, rows, token

        return await self._db.read(work)

    async def _usable_schema(self, principal: Principal, schema: str) -> str:
        try:
            chain = await self.schema_access_chain(schema)
        except Missing as missing:
            self._grants.require(principal, Privilege.USE_SCHEMA, missing.nearest)
            raise missing.error from None
        self._grants.require(principal, Privilege.USE_SCHEMA, chain)
        return chain[0].id
