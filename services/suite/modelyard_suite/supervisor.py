"""Starts processes in stages, starts again what dies, and stops everything, the last stage first."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from modelyard_suite.home import Running

READY_POLL_SECONDS = 0.05
END_POLL_SECONDS = 0.02
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# A process that ran this long before it died starts with the shortest pause again.
STABLE_SECONDS = 30.0


class StartFailedError(RuntimeError):
    """A process ended, or was not ready in time, while the suite was starting; the message holds the end of its log."""


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the suite.

    Args:
        name: short name, also of its log file.
        command: program and arguments.
        environment: whole environment.
        is_ready: tells whether it answers.
        when_ready: runs once after it is ready and before the next stage starts.
        user: system user to run as; None means this one.
        stop_signal: asks it to end cleanly.
        stop_seconds: how long it may take to end before it is killed.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    is_ready: Callable[[], Awaitable[bool]]
    when_ready: Callable[[], Awaitable[None]] | None = None
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 20.0


@dataclass
class _Child:
    spec: ProcessSpec
    process: asyncio.subprocess.Process
    running: Running
    log_begin: int
    started: float = field(default_factory=time.monotonic)


class Supervisor:
    """Runs processes in stages: those of one stage start together, the next stage when all of them are ready.

    Args:
        logs: folder for one log file each.
        changed: called with what runs whenever that changes.
    """

    def __init__(self, logs: Path, changed: Callable[[dict[str, Running]], None]) -> None:
        self._logs = logs
        self._changed = changed
        self._stages: list[list[str]] = []
        self._children: dict[str, _Child] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    async def start(self, stages: Sequence[Sequence[ProcessSpec]], *, timeout: float = 60.0) -> None:
        """Start everything and return when all of it is ready.

        Raises:
            StartFailedError: something did not become ready within `timeout` seconds.
        """
        for stage in stages:
            self._stages.append([spec.name for spec in stage])
            for spec in stage:
                await self._launch(spec, restarts=0)
            try:
                async with asyncio.TaskGroup() as group:
                    for spec in stage:
                        group.create_task(self._become_ready(spec, timeout))
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from failures
            for spec in stage:
                self._watchers[spec.name] = asyncio.create_task(self._watch(spec.name))

    async def stop(self) -> None:
        """End every process, the last stage first; kill what does not end in its time."""
        self._stopping = True
        for watcher in self._watchers.values():
            watcher.cancel()
        await asyncio.gather(*self._watchers.values(), return_exceptions=True)
        for stage in reversed(self._stages):
            await asyncio.gather(*(self._end(name) for name in stage if name in self._children))
            self._report()

    async def _launch(self, spec: ProcessSpec, *, restarts: int) -> None:
        with self._log(spec.name) as log:
            log_begin = log.seek(0, os.SEEK_END)
            process = await asyncio.create_subprocess_exec(
                *spec.command,
                env=dict(spec.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then stops in order
                user=spec.user,
                group=spec.user,
                cwd=Path("/") if spec.user else None,
            )
        start_time = psutil.Process(process.pid).create_time()
        self._children[spec.name] = _Child(
            spec, process, Running(process.pid, start_time, restarts), log_begin
        )
        self._report()

    async def _become_ready(self, spec: ProcessSpec, timeout: float) -> None:
        child = self._children[spec.name]
        deadline = time.monotonic() + timeout
        while not await spec.is_ready():
            if child.process.returncode is not None:
                raise StartFailedError(
                    f"{spec.name} ended with status {child.process.returncode} while starting:\n{self._log_tail(spec.name)}"
                )
            if time.monotonic() > deadline:
                raise StartFailedError(
                    f"{spec.name} was not ready after {timeout:.0f} s; the end of its log:\n{self._log_tail(spec.name)}"
                )
            await asyncio.sleep(READY_POLL_SECONDS)
        if spec.when_ready:
            await spec.when_ready()

    async def _watch(self, name: str) -> None:
        """Start a process again each time it ends."""
        failures = 0
        while True:
            child = self._children[name]
            await child.process.wait()
            if self._stopping:
                return
            failures = 0 if time.monotonic() - child.started > STABLE_SECONDS else failures + 1
            await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
            await self._launch(child.spec, restarts=child.running.restarts + 1)

    async def _end(self, name: str) -> None:
        child = self._children.pop(name)
        if child.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(child.spec.stop_signal)
        try:
            async with asyncio.timeout(child.spec.stop_seconds):
                await child.process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, signal.SIGKILL)
            await child.process.wait()

    def _report(self) -> None:
        self._changed({name: child.running for name, child in self._children.items()})

    def _log(self, name: str) -> IO[bytes]:
        return (self._logs / f"{name}.log").open("ab")

    def _log_tail(self, name: str, lines: int = 20) -> str:
        """Return the end of what a process has said since it was started; its log holds earlier lives too."""
        with (self._logs / f"{name}.log").open("rb") as log:
            log.seek(self._children[name].log_begin)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def is_alive(running: Running) -> bool:
    """Return whether exactly this process still runs."""
    try:
        process = psutil.Process(running.pid)
        same = abs(process.create_time() - running.start_time) < 1.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_leftover(running: Running, number: signal.Signals = signal.SIGTERM, seconds: float = 10.0) -> None:
    """End a process that a supervisor left behind, if it still runs.

    Raises:
        StartFailedError: it does not end, even killed.
    """
    for asked in (number, signal.SIGKILL):
        if not is_alive(running):
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(running.pid).send_signal(asked)
        if has_ended(running, seconds=seconds):
            return
    raise StartFailedError(f"process {running.pid} of an earlier suite does not end, even killed")


def has_ended(running: Running, *, seconds: float) -> bool:
    """Wait for the end of a process that may be another's child; False when it still runs after `seconds`.

    One that its parent has not collected has ended too: in a container, the first process may never collect any.
    """
    deadline = time.monotonic() + seconds
    while is_alive(running):
        if time.monotonic() > deadline:
            return False
        time.sleep(END_POLL_SECONDS)
    return True
