"""Rules of aliases: several move together or none does, only to READY versions that policies let through."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from modelyard_catalog import alias_log
from modelyard_catalog.commands import AliasAt, AliasChange, AliasHistory, Rollback, SetAliases
from modelyard_catalog.errors import AliasMoved
from modelyard_catalog.models import AliasMove, Model, ModelVersion, Path, RecordedMove, VersionState
from modelyard_catalog.recording import model_turn, record
from modelyard_catalog.store import CatalogStore
from modelyard_kit import limits
from modelyard_kit.access import ResourceType
from modelyard_kit.auth import Call
from modelyard_kit.clock import Clock
from modelyard_kit.db import Database
from modelyard_kit.errors import Contention, InvalidField, InvalidState, NotFound

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
            InvalidField: an alias has the name of a label.
            AliasMoved: an alias does not point where the caller expects.
            PolicyUnmet: a policy holds a version back.
            PeerUnavailable: the governance service does not answer.
            LimitExceeded: the model would have too many aliases.
        """
        gated = await self._pass_gates(call, command)
        return await self._db.in_tx(
            lambda connection: self._move(connection, call, command, gated), turns=[model_turn(command.model)]
        )

    async def rollback(self, call: Call, command: Rollback) -> Model:
        """Point an alias where it pointed before its last move, and return the model.

        That is a move like any other: to roll back twice is to be where one began.

        Raises:
            NotFound: the model, the alias or the version it pointed at does not exist.
            InvalidState: it has not pointed anywhere else, or that version is not READY.
            AliasMoved: it does not point where the caller expects, or was moved meanwhile.
            Contention: it was moved meanwhile, and back.
            PolicyUnmet: a policy holds the version back.
            PeerUnavailable: the governance service does not answer.
        """
        last = await self._db.read(lambda connection: self._last_move(connection, call, command))
        if command.expected is not None and command.expected != last.after:
            name = ".".join(command.model)
            raise AliasMoved(name, command.alias, expected=command.expected, actual=last.after)
        if not last.before:
            raise InvalidState(
                "alias", _alias_name(command), state="where it was set first", wanted="moved since"
            )
        back = SetAliases(command.model, (AliasChange(command.alias, last.before, expected=last.after),))
        gated = await self._pass_gates(call, back)

        async def work(connection: AsyncConnection) -> Model:
            now = await alias_log.last(connection, gated.id, command.alias)
            if now is None or (now.after == last.after and now.sequence != last.sequence):
                raise Contention(1)
            return await self._move(connection, call, back, gated)

        return await self._db.in_tx(work, turns=[model_turn(command.model)])

    async def history(self, call: Call, command: AliasHistory) -> tuple[list[RecordedMove], str]:
        """Return a page of moves, newest first, and the token of the next one.

        Raises:
            NotFound: the model does not exist.
            InvalidField: filter or page_token has a mistake.
            LimitExceeded: the filter is too large.
        """

        async def work(connection: AsyncConnection) -> tuple[list[RecordedMove], str]:
            model = await self._model(connection, command.model)
            call.confirm(model.chain)
            return await alias_log.page(connection, model.id, command.alias, command.asked)

        return await self._db.read(work)

    async def at(self, call: Call, command: AliasAt) -> int:
        """Return the number of the version that an alias pointed at; 0 if it did not exist then.

        Raises:
            NotFound: the model does not exist.
        """

        async def work(connection: AsyncConnection) -> int:
            model = await self._model(connection, command.model)
            call.confirm(model.chain)
            last = await alias_log.last(connection, model.id, command.alias, until=command.time)
            return 0 if last is None else last.after

        return await self._db.read(work)

    async def _move(
        self, connection: AsyncConnection, call: Call, command: SetAliases, gated: Model
    ) -> Model:
        """Make changes that passed the gates of the model `gated`, and return the model as it is then."""
        model, versions = await self._state(connection, command)
        if model.id != gated.id:  # deleted and made again since: governance was asked about another one
            raise NotFound(gated.kind, gated.name)
        call.confirm(model.chain)
        await self._refuse_labels(connection, model, command.changes)
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

    async def _pass_gates(self, call: Call, command: SetAliases) -> Model:
        """Ask governance about every version concerned, before the transaction, and return the model."""
        model, versions = await self._db.read(lambda connection: self._state(connection, command))
        call.confirm(model.chain)
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
        model = await self._model(connection, command.model)
        wanted = [change.version for change in command.changes if change.version]
        versions = await self._store.versions_by_number(connection, model.id, wanted)
        for number in wanted:
            version = versions.get(number)
            if version is None:
                raise NotFound(ResourceType.MODEL_VERSION, f"{model.name}/{number}")
            if version.state is not VersionState.READY:
                raise InvalidState(version.kind, version.name, state=version.state, wanted=VersionState.READY)
        return model, versions

    async def _last_move(self, connection: AsyncConnection, call: Call, command: Rollback) -> RecordedMove:
        model = await self._model(connection, command.model)
        call.confirm(model.chain)
        last = await alias_log.last(connection, model.id, command.alias)
        if last is None:
            raise NotFound("alias", _alias_name(command))
        return last

    async def _model(self, connection: AsyncConnection, path: Path) -> Model:
        found = await self._store.find(connection, Model, path)
        if found is None:
            raise NotFound(ResourceType.MODEL, ".".join(path))
        return found

    async def _refuse_labels(
        self, connection: AsyncConnection, model: Model, changes: Sequence[AliasChange]
    ) -> None:
        """Refuse to give an alias the name of a label: a reference would mean two versions."""
        wanted = [change.alias for change in changes if change.version]
        for label, number in (await self._store.labels(connection, model.id, wanted)).items():
            position = next(i for i, change in enumerate(changes) if change.alias == label)
            raise InvalidField(
                f"changes[{position}].alias",
                f"{label!r} is the label of version {number} of {model.name!r}; choose another name",
            )


def _alias_name(command: Rollback) -> str:
    return f"{'.'.join(command.model)}@{command.alias}"


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
