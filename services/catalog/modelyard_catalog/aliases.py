"""Rules of aliases: several move together or none does, only to READY versions that policies let through."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog.commands import AliasChange, SetAliases
from modelyard_catalog.errors import AliasMoved
from modelyard_catalog.models import AliasMove, Model, ModelVersion, VersionState
from modelyard_catalog.recording import record
from modelyard_catalog.store import CatalogStore
from modelyard_kit import limits
from modelyard_kit.access import ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidState, NotFound

_GATES_AT_ONCE = 8


class Gates(Protocol):
    """What the rules ask of the governance service."""

    async def require_alias_move(self, version: ModelVersion, aliases: Sequence[str]) -> None:
        """Return if policies let the aliases point at the version.

        Raises:
            PolicyUnmet: they do not.
            PeerUnavailable: nobody can tell at the moment.
        """
        ...


class Aliases:
    """Use cases of aliases."""

    def __init__(self, db: Database, store: CatalogStore, clock: Clock, gates: Gates) -> None:
        self._db = db
        self._store = store
        self._clock = clock
        self._gates = gates

    async def set(self, call: Call, command: SetAliases) -> Model:
        """Point aliases at versions or remove them, all or none, and return the model.

        Raises:
            NotFound: the model or a version does not exist.
            InvalidState: a version is not READY.
            AliasMoved: an alias does not point where the caller expects.
            PolicyUnmet: a policy holds a version back.
            PeerUnavailable: the governance service does not answer.
            LimitExceeded: the model would have too many aliases.
        """
        gated = await self._pass_gates(command)

        async def work(connection: AsyncConnection) -> Model:
            model, versions = await self._state(connection, command)
            if model.id != gated.id:  # deleted and made again since: governance was asked about another one
                raise NotFound(gated.kind, gated.name)
            moves = plan(model, command.changes)
            limits.check("aliases_per_model", _count_after(model, moves))
            if not moves:
                return model
            now = self._clock()
            await self._store.move_aliases(connection, model.id, moves, call, now)
            numbers = {number for move in moves for number in (move.before, move.after)}
            ids = await self._store.versions_by_number(connection, model.id, numbers - versions.keys())
            for move in moves:
                data = {
                    "alias": move.alias,
                    "before": _end(move.before, ids | versions),
                    "after": _end(move.after, ids | versions),
                }
                await record(connection, call, "catalog.alias.moved", model.link, time=now, data=data)
            return await self._store.get(connection, Model, model.id) or model

        return await self._db.in_tx(work, turn=f"model {'.'.join(command.model)}")

    async def _pass_gates(self, command: SetAliases) -> Model:
        """Ask governance about every version concerned, before the transaction, and return the model."""
        model, versions = await self._db.read(lambda connection: self._state(connection, command))
        names: dict[int, list[str]] = {}
        for change in command.changes:
            if change.version:
                names.setdefault(change.version, []).append(change.alias)
        permits = asyncio.Semaphore(_GATES_AT_ONCE)

        async def ask(number: int, aliases: Sequence[str]) -> None:
            async with permits:
                await self._gates.require_alias_move(versions[number], aliases)

        # Gathered, not a task group: the first refusal is the answer, as it was raised.
        await asyncio.gather(*(ask(number, aliases) for number, aliases in names.items()))
        return model

    async def _state(
        self, connection: AsyncConnection, command: SetAliases
    ) -> tuple[Model, dict[int, ModelVersion]]:
        """Return the model, and the versions that aliases are to point at, all of them there and READY."""
        model = await self._store.find(connection, Model, command.model)
        if model is None:
            raise NotFound(ResourceType.MODEL, ".".join(command.model))
        wanted = [change.version for change in command.changes if change.version]
        versions = await self._store.versions_by_number(connection, model.id, wanted)
        for number in wanted:
            version = versions.get(number)
            if version is None:
                raise NotFound(ResourceType.MODEL_VERSION, f"{model.name}/{number}")
            if version.state is not VersionState.READY:
                raise InvalidState(version.kind, version.name, state=version.state, wanted=VersionState.READY)
        return model, versions


def plan(model: Model, changes: Sequence[AliasChange]) -> list[AliasMove]:
    """Return the moves that changes come down to; an alias that points there already does not move.

    Raises:
        AliasMoved: an alias does not point where its change expects.
    """
    moves = []
    for change in changes:
        actual = model.aliases.get(change.alias, 0)
        if change.expected is not None and change.expected != actual:
            raise AliasMoved(model.name, change.alias, expected=change.expected, actual=actual)
        if change.version != actual:
            moves.append(AliasMove(change.alias, before=actual, after=change.version))
    return moves


def _count_after(model: Model, moves: Sequence[AliasMove]) -> int:
    made = sum(1 for move in moves if not move.before)
    removed = sum(1 for move in moves if not move.after)
    return len(model.aliases) + made - removed


def _end(number: int, versions: Mapping[int, ModelVersion]) -> dict[str, object] | None:
    """Return one end of a move as events carry it; None stands for nowhere."""
    if not number:
        return None
    return {"version": number, "version_id": versions[number].id if number in versions else ""}
