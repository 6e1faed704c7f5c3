"""Brings Envoy to a configuration without dropping a request, and knows what Envoy serves.

Envoy reads its files of rights, clusters, routes, certificates and listeners. They are written in the order that never leaves a route
without its cluster, nor lets anybody in who has no right to what it leads to: rights and clusters old and new together, wait until the new
clusters are warm, then the routes, wait, then rights and clusters without the old ones. When Envoy does not run, the files are written all
the same: it starts from them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from modelyard_gateway import envoy, rights, validation
from modelyard_gateway.admin import Admin, EnvoyBusyError, EnvoyState, EnvoyUnreachableError, rest_after
from modelyard_gateway.files import prepare_directory, write_atomic
from modelyard_gateway.render import (
    BOOTSTRAP_FILE,
    CLUSTERS_FILE,
    LISTENERS_FILE,
    RIGHTS_FILE,
    ROUTES_FILE,
    Configuration,
    bootstrap,
    discovery_file,
    referenced_clusters,
    version_of,
)
from modelyard_gateway.settings import GatewaySettings
from modelyard_gateway.tls import CERTIFICATE_FILE, CLIENT_CA_FILE

log = structlog.get_logger()

_POLL_SECONDS = 0.02
_SECRETS = (CERTIFICATE_FILE, CLIENT_CA_FILE)
_FILES = (LISTENERS_FILE, CLUSTERS_FILE, RIGHTS_FILE, ROUTES_FILE, *_SECRETS)
Json = dict[str, Any]
File = tuple[Sequence[Json], str]
"""Resources and their version."""


class ApplyFailedError(Exception):
    """Envoy does not serve a configuration; the text says why, for the operator."""


class Applier:
    """Owns the files of one Envoy."""

    def __init__(self, settings: GatewaySettings, admin: Admin) -> None:
        self._settings = settings
        self._admin = admin
        self._folder = settings.envoy_directory
        self._versions: dict[str, str] = {}
        self._routes: Json | None = None
        self._rights: Json | None = None
        """Those that the routes were written with; None while no listener asks for any."""
        self._clusters: dict[str, Json] = {}
        self._accepted: validation.Marks = frozenset()

    def prepare(self) -> None:
        """Make the folder, the bootstrap and, where they are missing, files without resources; read what is there."""
        prepare_directory(self._folder)
        Path(self._settings.access_log_file).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._folder / BOOTSTRAP_FILE, json.dumps(bootstrap(self._settings), indent=1))
        found: dict[str, list[Json]] = {}
        for name in _FILES:
            path = self._folder / name
            found[name], version = _read(path)
            if version is None:
                version = version_of([])
                write_atomic(path, discovery_file([], version))
            self._versions[name] = version
        self._clusters = {cluster["name"]: cluster for cluster in found[CLUSTERS_FILE]}
        self._routes = found[ROUTES_FILE][0] if found[ROUTES_FILE] else None
        self._rights = found[RIGHTS_FILE][0] if found[RIGHTS_FILE] else None
        # What was written had been accepted.
        secrets = {name: found[name][0] for name in _SECRETS if found[name]}
        listeners, clusters = tuple(found[LISTENERS_FILE]), tuple(found[CLUSTERS_FILE])
        self._accepted = validation.marks(
            Configuration(listeners, clusters, self._routes, self._rights, secrets)
        )

    @property
    def is_empty(self) -> bool:
        """Whether no configuration was ever applied in this folder."""
        return self._routes is None

    async def apply(self, wanted: Configuration) -> bool:
        """Bring Envoy to `wanted`; return whether clusters that nothing leads to any more are left.

        With thousands of clusters their removal takes seconds, and nobody has to wait for it: a call that has nothing else to change
        removes them, or one that adds clusters.

        Raises:
            ApplyFailedError: Envoy refuses it (then nothing was written), or does not take it in time.
        """
        files = await asyncio.to_thread(_files, wanted)
        if all(version == self._versions[name] for name, (_, version) in files.items()):
            await self._settle()
            return False
        await self._validate(wanted)
        await self._put_rights_between(files[RIGHTS_FILE], wanted.rights)
        if await asyncio.to_thread(self._are_new, wanted.clusters):
            both = await asyncio.to_thread(self._with_old, wanted.clusters)
            await self._put_clusters((both, await asyncio.to_thread(version_of, both)))
        elif files[ROUTES_FILE][1] == self._versions[ROUTES_FILE]:
            await self._put_clusters(files[CLUSTERS_FILE])
        await self._put(ROUTES_FILE, files[ROUTES_FILE])
        self._routes = wanted.routes
        for name in (*_SECRETS, LISTENERS_FILE):
            await self._put(name, files[name])
        self._rights = wanted.rights
        await self._settle()
        if await self._put(RIGHTS_FILE, files[RIGHTS_FILE]):
            await self._settle()
        log.info("configuration_applied", routes=self._versions[ROUTES_FILE], clusters=len(wanted.clusters))
        return files[CLUSTERS_FILE][1] != self._versions[CLUSTERS_FILE]

    async def _validate(self, wanted: Configuration) -> None:
        try:
            program = envoy.binary(self._settings.envoy_binary)
        except envoy.EnvoyMissingError as error:
            raise ApplyFailedError(str(error)) from error
        candidates = validation.candidates(wanted, self._accepted)
        while found := await asyncio.to_thread(next, candidates, None):
            candidate, held = found
            if problem := await envoy.validate(program, candidate):
                raise ApplyFailedError(f"Envoy refuses the configuration: {problem}")
            self._accepted |= held
        self._accepted = await asyncio.to_thread(validation.marks, wanted)

    def _are_new(self, clusters: tuple[Json, ...]) -> bool:
        return any(self._clusters.get(cluster["name"]) != cluster for cluster in clusters)

    def _with_old(self, clusters: tuple[Json, ...]) -> tuple[Json, ...]:
        """Return these clusters, and those of before that the routes of now lead to."""
        gone = referenced_clusters(self._routes) - {cluster["name"] for cluster in clusters}
        return *clusters, *(self._clusters[name] for name in sorted(gone & self._clusters.keys()))

    async def _put_rights_between(self, file: File, wanted: Json | None) -> None:
        """Write what holds until the routes have changed, which most times is what is wanted."""
        held = await asyncio.to_thread(rights.between, self._rights, wanted) if wanted else None
        if held is not wanted and held:
            file = [held], await asyncio.to_thread(version_of, [held])
        if await self._put(RIGHTS_FILE, file):
            await self._settle()

    async def _put_clusters(self, file: File) -> None:
        if await self._put(CLUSTERS_FILE, file):
            self._clusters = {cluster["name"]: cluster for cluster in file[0]}
            await self._settle()

    async def _put(self, name: str, file: File) -> bool:
        if file[1] == self._versions[name]:
            return False
        await asyncio.to_thread(lambda: write_atomic(self._folder / name, discovery_file(*file)))
        self._versions[name] = file[1]
        return True

    async def _settle(self) -> None:
        """Wait until Envoy serves the files as written and every cluster is warm; not at all if it does not run."""
        deadline = time.monotonic() + self._settings.apply_timeout_seconds
        while True:
            began = time.monotonic()
            try:
                problem = self._lag(await self._admin.state())
            except EnvoyBusyError as error:
                problem = str(error)
            except EnvoyUnreachableError:
                return
            if not problem:
                return
            if time.monotonic() > deadline:
                raise ApplyFailedError(await self.explain(problem))
            await asyncio.sleep(rest_after(time.monotonic() - began, _POLL_SECONDS))

    async def lag(self) -> str:
        """Return in what Envoy does not serve the files as written; empty when it does.

        Raises:
            EnvoyUnreachableError: it does not answer.
        """
        return self._lag(await self._admin.state())

    def _lag(self, state: EnvoyState) -> str:
        pairs = {
            LISTENERS_FILE: state.listeners,
            CLUSTERS_FILE: state.clusters,
            ROUTES_FILE: state.routes,
            RIGHTS_FILE: state.rights,
        }
        # Routes and rights are asked for by the listener; without a listener there are none.
        if self._routes is None:
            del pairs[ROUTES_FILE]
        if self._rights is None:
            del pairs[RIGHTS_FILE]
        late = [name for name, applied in pairs.items() if applied != self._versions[name]]
        if late:
            return f"Envoy has not taken {', '.join(late)}"
        return f"{state.warming} clusters of Envoy are not warm yet" if state.warming else ""

    async def explain(self, problem: str) -> str:
        """Return what `lag` said, and why as Envoy puts it."""
        try:
            said = await self._admin.problem()
        except EnvoyUnreachableError as error:
            return str(error)
        if "Address already in use" in said or "cannot bind" in said:
            listen = self._settings.listen
            return f"{listen} is taken by another program: stop it, or choose another address with MODELYARD_LISTEN ({said})"
        return f"{problem}: {said}" if said else problem


def _files(wanted: Configuration) -> dict[str, File]:
    """Return what is in every file."""
    resources: dict[str, Sequence[Json]] = {
        LISTENERS_FILE: wanted.listeners,
        CLUSTERS_FILE: wanted.clusters,
        ROUTES_FILE: _resources(wanted.routes),
        RIGHTS_FILE: _resources(wanted.rights),
        **{name: _resources(wanted.secrets.get(name)) for name in _SECRETS},
    }
    return {name: (given, version_of(given)) for name, given in resources.items()}


def _resources(one: Json | None) -> list[Json]:
    return [one] if one else []


def _read(path: Path) -> tuple[list[Json], str | None]:
    """Return resources and version of a file of an earlier run; no version if it is missing or unreadable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return list(content["resources"]), str(content["version_info"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], None
