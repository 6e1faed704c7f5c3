"""The inference control plane with a real database and real processes, and stand-ins for everything around it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from modelyard._cache import BlobCache
from modelyard._manifest import manifest_digest
from modelyard.references import parse_version_reference
from modelyard.types import FileEntry
from modelyard_inference.admission import Admission
from modelyard_inference.artifacts import ArtifactCache
from modelyard_inference.canary import Figures
from modelyard_inference.commands import CreateDeployment
from modelyard_inference.deployments import Deployments
from modelyard_inference.environments.cache import EnvironmentCache
from modelyard_inference.evidence import Evidence
from modelyard_inference.followers import Followers
from modelyard_inference.launchers.local import LocalLauncher
from modelyard_inference.lineage import Lineage
from modelyard_inference.lookups import Lookups
from modelyard_inference.means import Means
from modelyard_inference.models import Deployment, DeploymentState, TargetSpec, Version
from modelyard_inference.notes import Note
from modelyard_inference.planner.observed import Gateway
from modelyard_inference.probe import ReplicaProber
from modelyard_inference.reconciler import Reconciler
from modelyard_inference.rollouts import Rollouts
from modelyard_inference.route_table import RouteTable
from modelyard_inference.routes import Routes
from modelyard_inference.signers import Signers
from modelyard_inference.steps import Steps
from modelyard_inference.steps.replicas import ReplicaDefaults
from modelyard_inference.store import InferenceStore
from modelyard_inference.watching import Watching
from modelyard_kit.access import (
    SYSTEM,
    SYSTEM_ID,
    Chain,
    Effect,
    Link,
    Privilege,
    ResourceGrant,
    ResourceType,
)
from modelyard_kit.auth import Call, Principal
from modelyard_kit.clock import utc_now
from modelyard_kit.db import Database
from modelyard_kit.errors import InvalidState, NotFound, PeerUnavailable, PolicyUnmet
from modelyard_kit.grants import Grants
from modelyard_kit.sole import Sole
from tests.framework import folders
from tests.framework.waiting import eventually

TINY_REPLICA = Path(__file__).with_name("tiny_replica.py")
ADA = Principal("u-ada", "ada", "user")
SERVICE = Principal("s-inference", "inference", "service")
CATALOG = Link(ResourceType.CATALOG, "c1", "prod")
SCHEMA = Link(ResourceType.SCHEMA, "s1", "prod.ml")
SIGNATURE = {
    "methods": [
        {
            "name": "predict",
            "inputs": [{"name": "x", "datatype": "FP64", "shape": [-1, 2]}],
            "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
            "input_layout": "TENSORS",
        }
    ]
}


def call(principal: Principal = ADA) -> Call:
    """Return a call of a principal."""
    return Call(principal, "request-1")


def spec(reference: str, weight: int = 1) -> TargetSpec:
    """Return a target by its reference."""
    parsed = parse_version_reference(reference)
    return TargetSpec(reference, parsed.model, follows=parsed.number is None, weight=weight)


def creation(name: str = "prod.ml.iris", *targets: TargetSpec, **changes: object) -> CreateDeployment:
    """Return a request for a deployment of `prod.ml.iris/1`."""
    given = CreateDeployment(
        name=name,
        description="",
        targets=targets or (spec("prod.ml.iris/1"),),
        replicas=1,
        max_request_bytes=2**20,
        timeout_ms=60_000,
        require_signature=False,
        request_id="",
        fingerprint="f",
    )
    return replace(given, **changes)  # type: ignore[arg-type]


async def all_grants(principal: Principal = ADA) -> Grants:
    """Return grants under which a principal owns the system."""
    grants = Grants(bound=3_600)  # nobody refreshes these
    owner = ResourceGrant(SYSTEM_ID, Privilege.OWNERSHIP, Effect.ALLOW)
    grants.replace(principal.id, principal.name, [owner])
    await grants.mark_fresh(1)
    return grants


ACTIVATOR = "unix:/s/activator"
"""Where predictions of what sleeps go; nobody listens there."""


@dataclass
class FakeUpstream:
    """A catalog, governance and artifact store in memory."""

    versions: dict[str, Version] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    refused: dict[str, list[str]] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    requirements: dict[str, bytes] = field(default_factory=dict)
    """requirements.txt of versions that have one, by name; set it before the version is added."""
    claimed: set[str] = field(default_factory=set)
    """Ids of versions that are being deleted."""
    content: dict[str, bytes] = field(default_factory=dict)
    schema: Chain = (SCHEMA, CATALOG, SYSTEM)
    silent: bool = False
    """Whether the lineage graph cannot be told anything."""
    told: list[Note] = field(default_factory=list)
    signed: dict[str, Evidence] = field(default_factory=dict)
    """By id of version."""
    signers_down: bool = False
    """Whether nobody can be asked about signatures."""

    def add(
        self, number: int, *, runtime: str = "ready", model: str = "prod.ml.iris", model_id: str = ""
    ) -> Version:
        """Register a version, of a model with this id if one is given."""
        name = f"{model}/{number}"
        self.content[name] = f"model {name} {runtime}".encode()
        version = Version(
            id=f"v-{model_id}/{number}" if model_id else f"v-{name}",
            name=name,
            number=number,
            model_id=model_id or f"m-{model}",
            model=model,
            artifact_digest=manifest_digest(self._files(name)),
            runtime=runtime,
            signature=SIGNATURE,
            author_id=ADA.id,
        )
        self.versions[name] = version
        return version

    async def version(self, reference: str) -> Version:
        reference = reference.removeprefix("models:/")
        name = self.aliases.get(reference, reference)
        if name not in self.versions:
            raise NotFound("model_version", reference)
        if name in self.pending:
            raise InvalidState("model_version", name, state="PENDING", wanted="READY")
        return self.versions[name]

    async def version_chain(self, name: str) -> Chain:
        version = self.versions[name]
        return (Link(ResourceType.MODEL_VERSION, version.id, name), *await self.nearest_chain(version.model))

    async def model_name(self, model_id: str) -> str:
        for version in self.versions.values():
            if version.model_id == model_id:
                return version.model
        raise NotFound("model", model_id)

    async def version_name(self, version_id: str) -> str:
        for version in self.versions.values():
            if version.id == version_id:
                return version.name
        raise NotFound("model_version", version_id)

    async def require_usable(self, version_id: str, schema_id: str) -> None:
        if version_id in self.claimed:
            raise InvalidState("model_version", version_id, state="being deleted", wanted="not deleted")
        await self.version_name(version_id)
        await self.schema_of_id(schema_id)

    async def schema_of_id(self, schema_id: str) -> Chain:
        if schema_id != SCHEMA.id:
            raise NotFound("schema", schema_id)
        return self.schema

    def rename(self, before: str, after: str) -> None:
        """Give a model another name; ids and content stay."""
        for name, version in list(self.versions.items()):
            if version.model == before:
                renamed = replace(version, name=f"{after}/{version.number}", model=after)
                self.versions[renamed.name] = renamed
                self.content[renamed.name] = self.content[name]
                del self.versions[name]
        for alias, name in list(self.aliases.items()):
            if name.startswith(f"{before}/"):
                del self.aliases[alias]
                self.aliases[alias.replace(before, after)] = name.replace(before, after)

    async def schema_chain(self, name: str) -> Chain:
        if name != SCHEMA.name:
            raise NotFound("schema", name)
        return (SCHEMA, CATALOG, SYSTEM)

    async def nearest_chain(self, name: str) -> Chain:
        parts = name.split(".")
        if parts[0] != CATALOG.name:
            return (SYSTEM,)
        if len(parts) < 2 or ".".join(parts[:2]) != SCHEMA.name:
            return (CATALOG, SYSTEM)
        for version in self.versions.values():
            if version.model == name:
                return (Link(ResourceType.MODEL, version.model_id, name), SCHEMA, CATALOG, SYSTEM)
        return (SCHEMA, CATALOG, SYSTEM)

    async def gate(self, version: Version, chain: Chain) -> None:
        assert chain[0].id == version.id
        if version.name in self.refused:
            raise PolicyUnmet("DEPLOY", version.name, "prod", self.refused[version.name])

    async def evidence(self, version_id: str, digest: str) -> Evidence:
        if self.signers_down:
            raise PeerUnavailable("artifact")
        assert digest == self.versions[await self.version_name(version_id)].artifact_digest
        return self.signed.get(version_id, Evidence())

    async def record_deployment(self, note: Note) -> None:
        if self.silent:
            raise PeerUnavailable("catalog")
        self.told.append(note)

    async def files(self, version: str) -> tuple[str, list[FileEntry]]:
        return self.versions[version].artifact_digest, self._files(version)

    def files_of(self, version: Version) -> list[FileEntry]:
        """Return the files of a version's artifact."""
        return self._files(version.name)

    async def read(self, version: str, path: str) -> AsyncIterator[bytes]:
        content = self.content[version] if path == "sub/model.bin" else self.requirements[version]
        yield content[:5]
        yield content[5:]

    def _files(self, name: str) -> list[FileEntry]:
        contents = {"sub/model.bin": self.content[name]}
        if name in self.requirements:
            contents["requirements.txt"] = self.requirements[name]
        return [
            FileEntry(path, len(content), hashlib.sha256(content).hexdigest())
            for path, content in sorted(contents.items())
        ]


class FakeGateway:
    """Confirms every table at once, with all its groups healthy, unless told not to."""

    def __init__(self, gateway_id: str = "gateway-1") -> None:
        self.id = gateway_id
        self.tables: list[RouteTable] = []
        self.confirms = True
        self.ill: set[str] = set()
        self.figures: dict[str, Figures] = {}
        """What it has counted, by version."""
        self.in_flight: dict[str, float] = {}
        """Predictions in flight, by version."""

    @property
    def table(self) -> RouteTable:
        """Return the newest table it was sent."""
        return self.tables[-1]

    def weights(self) -> dict[str, int]:
        """Return the share of each version in the newest table."""
        return {t.version: t.weight for route in self.table.routes for t in route.targets}

    def gaps(self) -> list[int]:
        """Return the versions of tables in which a deployment that had traffic before has none."""
        found, served = [], set[str]()
        for table in self.tables:
            now = {r.chain[0].id: sum(t.weight for t in r.targets if t.addresses) for r in table.routes}
            found += [table.version for deployment in served if not now.get(deployment)]
            served |= {deployment for deployment, weight in now.items() if weight}
        return found

    async def run(self, routes: Routes) -> None:
        """Follow a route table for ever."""
        async for table in routes.watch(self.id):
            self.tables.append(table)
            if self.confirms:
                self.confirm(routes)

    def count(self, routes: Routes, version: str, answered: int, failed: int = 0) -> None:
        """Tell that so many predictions more were counted of a version."""
        more = Figures(answered, failed, {2.0: answered + failed})
        self.figures[version] = self.figures.get(version, Figures()) + more
        self.confirm(routes)

    def confirm(self, routes: Routes) -> None:
        """Confirm the newest table."""
        versions = {target.group: target.version for route in self.table.routes for target in route.targets}
        figures = {group: self.figures[v] for group, v in versions.items() if v in self.figures}
        in_flight = {group: self.in_flight[v] for group, v in versions.items() if v in self.in_flight}
        healthy = frozenset(versions.keys() - self.ill)
        routes.confirm(Gateway(self.id, self.table.version, healthy, figures=figures, in_flight=in_flight))


@dataclass
class Inference:
    """One life of the control plane."""

    db: Database
    store: InferenceStore
    lookups: Lookups
    deployments: Deployments
    rollouts: Rollouts
    watching: Watching
    reconciler: Reconciler
    launcher: LocalLauncher
    routes: Routes
    tasks: list[asyncio.Task[None]]

    async def get(self, name: str = "prod.ml.iris") -> Deployment:
        """Return a deployment."""
        return await self.lookups.get(name)

    async def until(self, condition: Callable[[Deployment], bool], name: str = "prod.ml.iris") -> Deployment:
        """Wait until a deployment is as wanted."""
        last: Deployment | None = None
        try:
            async with asyncio.timeout(60):
                while True:
                    last = await self.get(name)
                    if condition(last):
                        return last
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"still {last}") from None

    async def until_state(self, state: DeploymentState, name: str = "prod.ml.iris") -> Deployment:
        """Wait until a deployment is in a state."""
        return await self.until(lambda deployment: deployment.state is state, name)

    async def until_replicas(self, count: int) -> None:
        """Wait until so many replica processes run."""

        async def so_many() -> bool:
            return len(await self.launcher.list()) == count

        await eventually(so_many)

    async def end_loops(self) -> None:
        """End the loops of this life, as the chassis does before it takes the rest apart."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def until_gone(self, name: str = "prod.ml.iris") -> None:
        """Wait until a deployment is removed."""
        with contextlib.suppress(NotFound):
            await self.until(lambda _: False, name)

    async def until_quiet(self) -> None:
        """Wait until nothing but serving groups is left."""
        await eventually(self._quiet)

    async def _quiet(self) -> bool:
        world = await self.db.read(self.store.world)
        return all(group.state == "SERVING" for group in world.groups)


@dataclass
class Site:
    """What outlives the control plane: database, folders, neighbours."""

    dsn: str
    folder: Path
    upstream: FakeUpstream = field(default_factory=FakeUpstream)
    gateway: FakeGateway = field(default_factory=FakeGateway)
    start_timeout: float = 30.0
    build_environments: bool = False
    flushed: dict[str, bool] = field(default_factory=dict)
    """Replicas whose logs were to be carried away, and whether their files were there then."""

    async def _note_flushed(self, replica_id: str) -> None:
        self.flushed[replica_id] = (self.folder / "r" / "replicas" / replica_id).is_dir()

    @property
    def command(self) -> tuple[str, str]:
        """Return what replicas run."""
        return (sys.executable, str(TINY_REPLICA))

    @asynccontextmanager
    async def life(self, *, gateway: bool = True) -> AsyncIterator[Inference]:
        """Run the control plane within this block; at the end it is gone as after a crash: replicas run on."""
        db, store, wake = Database.connect(self.dsn), InferenceStore(ACTIVATOR), asyncio.Event()
        launcher = LocalLauncher(self.folder / "r", self.command)
        launcher.prepare()
        cache = ArtifactCache(self.upstream, self.folder / "cache", BlobCache(self.folder / "blobs", limit=0))
        cache.prepare()
        environments = EnvironmentCache(self.folder / "environments", enabled=self.build_environments)
        environments.prepare()
        routes = Routes(await db.read(store.routes), wake.set)
        grants = await all_grants()
        watching = Watching(db, store, grants)
        prober = ReplicaProber()
        means = Means(
            db=db,
            store=store,
            artifacts=cache,
            environments=environments,
            admission=Admission(self.upstream, wake.set),
            signers=Signers(db, store, self.upstream),
            launcher=launcher,
            prober=prober,
            clock=utc_now,
            actor=lambda: SERVICE,
            flush_logs=self._note_flushed,
        )
        steps = Steps(means, ReplicaDefaults(drain_seconds=2.0), wake.set)
        sole = Sole(self.dsn, "inference")
        await sole.take()
        timeout = timedelta(seconds=self.start_timeout)
        reconciler = Reconciler(means, steps, routes, watching, sole=sole, wake=wake, start_timeout=timeout)
        followers = Followers(db, store, self.upstream, wake.set, lambda: reconciler.seen)
        lookups = Lookups(db, store, self.upstream, grants)
        deployments = Deployments(
            db,
            store,
            lookups,
            self.upstream,
            grants,
            utc_now,
            wake.set,
            builds_environments=self.build_environments,
        )
        rollouts = Rollouts(db, store, utc_now, wake.set)
        lineage = Lineage(db, self.upstream)
        running = [
            reconciler.run(),
            followers.run(),
            lineage.run(),
            *([self.gateway.run(routes)] if gateway else []),
        ]
        tasks = [asyncio.create_task(work) for work in running]
        inference = Inference(
            db, store, lookups, deployments, rollouts, watching, reconciler, launcher, routes, tasks
        )
        try:
            yield inference
        finally:
            await inference.end_loops()
            await steps.close()
            await means.close()
            await prober.close()
            await sole.close()
            await db.close()

    async def stop_replicas(self) -> None:
        """End every replica process."""
        launcher = LocalLauncher(self.folder / "r", self.command)
        await asyncio.gather(*(launcher.stop(handle, 0.0) for handle in await launcher.list()))


@asynccontextmanager
async def site(dsn: str) -> AsyncIterator[Site]:
    """Give a site in a short temporary folder; nothing runs afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="my-", dir=folders.SHORT))
    made = Site(dsn, folder)
    try:
        yield made
    finally:
        if (folder / "r").exists():
            await made.stop_replicas()
        shutil.rmtree(folder, ignore_errors=True)
