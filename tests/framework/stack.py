"""Stacks that behaviour tests run on: the same story in one process, and on real processes behind a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.aio import AsyncClient
from modelyard_artifact import app as artifact
from modelyard_catalog import app as catalog
from modelyard_governance import app as governance
from modelyard_inference import app as inference
from modelyard_kit.chassis import running
from modelyard_suite import plan, secrets, suite
from modelyard_suite.home import Home, Running
from tests.framework import folders
from tests.framework.postgres import TestPostgres


@dataclass(frozen=True)
class User:
    """A user of a test, with a client of its own."""

    name: str
    client: AsyncClient


class Stack(ABC):
    """A running Modelyard.

    `predicts` tells whether predictions can be made: they need a gateway.
    """

    predicts: bool
    home: Home

    @abstractmethod
    def client(self, token: str) -> AsyncClient:
        """Return a client that logs in with an API token."""

    @property
    def admin_token(self) -> str:
        """API token of the administrator."""
        return self.home.token_file(secrets.ADMINISTRATOR).read_text().strip()

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AsyncClient]:
        """Run with a client of the administrator."""
        async with self.client(self.admin_token) as client:
            yield client

    @asynccontextmanager
    async def user(self, prefix: str = "user") -> AsyncIterator[User]:
        """Run with a new user that may do nothing yet."""
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        async with self.admin() as admin:
            await admin.principals.create(name)
            token = await admin.tokens.create(principal=name)
        async with self.client(token.secret) as client:
            yield User(name, client)


class InProcess(Stack):
    """The four services in the event loop of the test; clients call each on its own socket."""

    predicts = False

    def __init__(self, home: Home) -> None:
        self.home = home

    def client(self, token: str) -> AsyncClient:
        names = ("governance", "catalog", "artifact", "inference")
        addresses = {name: self.home.socket(name) for name in names}
        return AsyncClient(addresses["governance"], token=token, services=addresses)

    @classmethod
    @asynccontextmanager
    async def start(cls, postgres: TestPostgres, **settings: Any) -> AsyncIterator[InProcess]:
        """Run it within this block; `settings` are given to every service."""
        with short_folder() as folder:
            home = Home(folder)
            home.prepare()
            secrets.ensure_tokens(home.secrets)
            addresses = {f"{name}_address": home.socket(name) for name in plan.SERVICES}
            particular: dict[str, dict[str, Any]] = {
                "governance": {
                    "signing_key_file": home.secrets / "signing_key.pem",
                    "bootstrap_directory": home.secrets,
                },
                "catalog": {},
                "artifact": {"blobs": f"file://{home.blobs}"},
                "inference": {
                    "run_directory": home.run / "r",
                    "cache_directory": home.cache,
                    "blob_cache_directory": home.cache / "blobs",
                },
            }
            types: dict[str, tuple[Any, Any]] = {
                "governance": (governance.GovernanceSettings, governance.build),
                "catalog": (catalog.CatalogSettings, catalog.build),
                "artifact": (artifact.ArtifactSettings, artifact.build),
                "inference": (inference.InferenceSettings, inference.build),
            }
            async with contextlib.AsyncExitStack() as running_services:
                for name, (settings_type, build) in types.items():
                    package = f"modelyard_{name}"
                    given = {
                        "listen": home.socket(name),
                        "database": postgres.fresh(package),
                        "token_file": home.token_file(name),
                        **addresses,
                        **particular[name],
                        **settings,
                    }
                    await running_services.enter_async_context(
                        running(settings_type(**given), build, package)
                    )
                yield cls(home)

    @classmethod
    @contextmanager
    def in_thread(cls, postgres: TestPostgres) -> Iterator[InProcess]:
        """Run it within this block on an event loop of its own, so that tests may come and go with theirs."""
        started: Future[InProcess] = Future()
        loop = asyncio.new_event_loop()
        stop = asyncio.Event()

        async def run() -> None:
            async with cls.start(postgres) as stack:
                started.set_result(stack)
                await stop.wait()

        def body() -> None:
            try:
                loop.run_until_complete(run())
            except BaseException as error:
                if started.done():
                    raise
                started.set_exception(error)
            finally:
                loop.close()

        thread = threading.Thread(target=body)
        thread.start()
        try:
            yield started.result(timeout=60)
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop.set)
            thread.join()


class Processes(Stack):
    """What `modelyard up` starts: real PostgreSQL, one process for each service, real Envoy, real replicas."""

    predicts = True

    def __init__(self, home: Home, target: str) -> None:
        self.home = home
        self.target = target

    def client(self, token: str) -> AsyncClient:
        return AsyncClient(self.target, token=token)

    def process(self, name: str) -> Running:
        """Return a process as the supervisor knows it."""
        state = self.home.state()
        assert state, "the supervisor is gone"
        return state.processes[name]

    @classmethod
    @contextmanager
    def start(cls, *, where: str = folders.SHORT, **extra: str) -> Iterator[Processes]:
        """Run it within this block; everything is stopped and deleted afterwards.

        Args:
            where: folder for its home; a benchmark's must be on the disk that it measures.
            extra: settings for every process.
        """
        with short_folder(where) as folder:
            home = Home(folder / "suite")
            target = f"127.0.0.1:{plan.free_port()}"
            suite.start_in_background(home, plan.Options(listen=target, extra=extra))
            try:
                yield cls(home, target)
            finally:
                suite.stop(home)


@contextmanager
def short_folder(where: str = folders.SHORT) -> Iterator[Path]:
    """Give a temporary folder whose path leaves room for the names of sockets."""
    with tempfile.TemporaryDirectory(prefix="my-", dir=where, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
