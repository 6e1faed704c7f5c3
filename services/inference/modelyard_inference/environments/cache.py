"""Environments on this machine: found by what is asked for, built in the background, removed when unused."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from modelyard_inference.environment_policy import NOT_BUILT, Environment, EnvironmentSource
from modelyard_inference.environments import EnvironmentFailed, wishes
from modelyard_inference.environments.archives import Archive, unpack
from modelyard_inference.environments.building import PARTIAL, build
from modelyard_inference.environments.links import PACKAGES
from modelyard_inference.environments.wishes import Wish
from modelyard_inference.planner.observed import Build
from modelyard_kit.clock import Clock, utc_now

SPARE: Final = 4
"""Environments kept although nothing uses them, so that going back to a version builds nothing."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
_FORGET_SECONDS: Final = 10 * LONGEST_PAUSE
"""After which nobody seems to want any more what could not be built."""

_log = structlog.get_logger()


@dataclass(frozen=True)
class _Problem:
    message: str
    until: float
    """Time of the clock before which it is not tried again."""
    failures: int


@dataclass
class _Running:
    build: Build
    task: asyncio.Task[None]
    uses: set[str]


class EnvironmentCache:
    """Environments in a local folder.

    Args:
        folder: where they are.
        enabled: whether any are built; else every replica runs in this service's own Python.
        allow_code: whether an environment that an artifact brings whole, and so any program in it, may run.
        traced: whether replicas export spans.
        build_seconds: longest time of each of uv's steps.
        packages: import packages of this installation to show in each.
        needs: requirements of a replica instead of its real ones, for tests.
        monotonic: a clock that never jumps, in seconds.
        clock: the time.
    """

    def __init__(
        self,
        folder: Path,
        *,
        enabled: bool,
        allow_code: bool = False,
        traced: bool = False,
        build_seconds: float = 600.0,
        packages: Sequence[str] = PACKAGES,
        needs: Sequence[str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Clock = utc_now,
    ) -> None:
        self._folder = folder
        self._enabled = enabled
        self._allow_code = allow_code
        self._traced = traced
        self._build_seconds = build_seconds
        self._packages = packages
        self._needs = needs
        self._monotonic = monotonic
        self._clock = clock
        self._building: dict[str, _Running] = {}
        self._problems: dict[str, _Problem] = {}
        self._slot = asyncio.Semaphore(1)

    def prepare(self) -> None:
        """Make the folders and remove what interrupted builds left."""
        for folder in (self._folder, self._folder / ".wishes", self._folder / ".uses"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    async def python(
        self,
        environment: Environment,
        digest: str,
        artifact: Path,
        runtime: str,
        *,
        signed: bool,
        done: Callable[[], None],
    ) -> str | None:
        """Return the Python that replicas of an artifact run in: empty for this service's own, None while it is being built.

        Args:
            environment: what their deployment chose.
            digest: of the artifact.
            artifact: its files.
            runtime: what loads it.
            signed: whether it has signatures to check.
            done: called when a build that this began has ended, good or bad.

        Raises:
            EnvironmentFailed: it cannot be had; asked again after a pause it is tried again.
        """
        own = environment.source is EnvironmentSource.REQUIREMENTS
        if own and not self._enabled:
            raise EnvironmentFailed(NOT_BUILT)
        if environment.source is EnvironmentSource.DEFAULT or not self._enabled:
            return ""
        needs = self._needs
        if needs is None:
            needs = wishes.needs_of(runtime, signed=signed, traced=self._traced)
        if own:
            return await self._found(wishes.chosen(environment, needs), environment.use(digest), done)
        wish = await asyncio.to_thread(wishes.read, artifact, needs, digest)
        if wish is None:
            return ""
        if isinstance(wish, Archive) and not self._allow_code:
            raise EnvironmentFailed(
                f"runtime.yaml names an environment inside the artifact, {wish.name}, whose programs would run here: set "
                "MODELYARD_ALLOW_MODEL_CODE=true if you trust everybody who may upload, or write a requirements.txt instead"
            )
        return await self._found(wish, environment.use(digest), done)

    def building(self, use: str) -> Build | None:
        """Return the environment that is being built for a use: `Environment.use`."""
        return next((running.build for running in self._building.values() if use in running.uses), None)

    async def close(self) -> None:
        """Stop every build."""
        tasks = [running.task for running in self._building.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop_unwanted(self, used: Collection[str]) -> None:
        """Stop builds that nothing in use waits for, so that others need not; `used` has each `Environment.use`."""
        for running in self._building.values():
            if running.uses.isdisjoint(used):
                running.task.cancel()

    def prune(self, used: Collection[str]) -> None:
        """Remove environments that nothing in use runs in, but for the most recent few; `used` has each `Environment.use`."""
        uses = {use.removeprefix("sha256:") for use in used}
        keys = set()
        for path in (self._folder / ".uses").iterdir():
            use, _, key = path.name.partition(".")
            if use in uses:
                keys.add(key)
            else:
                path.unlink(missing_ok=True)
        unused = [
            path for path in self._folder.iterdir() if path.name not in keys and not path.name.startswith(".")
        ]
        unused.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in unused[SPARE:]:
            doomed = path.with_name(f"{PARTIAL}{path.name}")
            path.rename(doomed)  # half an environment must never have its name
            shutil.rmtree(doomed, ignore_errors=True)
            _log.info("environment_removed", environment=path.name)
        for wish in (self._folder / ".wishes").iterdir():
            if not (self._folder / wish.read_text("utf-8")).is_dir():
                wish.unlink(missing_ok=True)

    async def _found(self, wish: Wish | Archive, use: str, done: Callable[[], None]) -> str | None:
        key = await asyncio.to_thread(self._use, wish, use)
        if key:
            return str(self._folder / key / "bin" / "python")
        self._build(wish, use, done)
        return None

    def _use(self, wish: Wish | Archive, use: str) -> str:
        """Return the key of the environment of a wish and note who uses it; empty if there is none."""
        try:
            key = (self._folder / ".wishes" / wish.id).read_text("utf-8")
        except FileNotFoundError:
            return ""
        if not (self._folder / key).is_dir():
            return ""
        (self._folder / ".uses" / f"{use.removeprefix('sha256:')}.{key}").touch()
        os.utime(self._folder / key)
        return key

    def _build(self, wish: Wish | Archive, use: str, done: Callable[[], None]) -> None:
        if running := self._building.get(wish.id):
            running.uses.add(use)
            return
        problem = self._problems.get(wish.id)
        if problem and self._monotonic() < problem.until:
            raise EnvironmentFailed(problem.message)

        def ended(_: asyncio.Task[None]) -> None:
            del self._building[wish.id]
            done()

        task = asyncio.create_task(self._try(wish))
        self._building[wish.id] = _Running(Build(wish.id, self._clock()), task, {use})
        task.add_done_callback(ended)

    async def _try(self, wish: Wish | Archive) -> None:
        began = self._monotonic()
        try:
            async with self._slot:
                key = await self._made(wish)
                await asyncio.to_thread(self._note, wish, key)
        except Exception as error:  # noqa: BLE001 - told and tried again; a task has nobody to raise to
            failures = self._problems[wish.id].failures + 1 if wish.id in self._problems else 1
            pause = min(FIRST_PAUSE * 2 ** min(failures, 16), LONGEST_PAUSE)
            message = f"its environment could not be built: {error}"
            now = self._monotonic()
            recent = {key: p for key, p in self._problems.items() if now < p.until + _FORGET_SECONDS}
            self._problems = {**recent, wish.id: _Problem(message, now + pause, failures)}
            _log.warning("environment_failed", wish=wish.id, error=str(error), retry_seconds=pause)
        else:
            self._problems.pop(wish.id, None)
            _log.info("environment_built", environment=key, seconds=round(self._monotonic() - began, 1))

    async def _made(self, wish: Wish | Archive) -> str:
        seconds, packages = self._build_seconds, self._packages
        if isinstance(wish, Archive):
            return await unpack(wish, self._folder, seconds=seconds, packages=packages)
        return await build(wish, self._folder, seconds=seconds, packages=packages)

    def _note(self, wish: Wish | Archive, key: str) -> None:
        new = self._folder / ".wishes" / f"{PARTIAL}{wish.id}"
        new.write_text(key, "utf-8")
        new.replace(self._folder / ".wishes" / wish.id)
