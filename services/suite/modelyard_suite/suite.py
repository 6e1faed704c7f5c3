"""One suite: up, down, and what it is doing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from modelyard import contexts
from modelyard_suite import plan, secrets
from modelyard_suite.home import Home, HomeInUseError, Running, State
from modelyard_suite.postgres import EmbeddedPostgres
from modelyard_suite.supervisor import StartFailedError, Supervisor, end_leftover, has_ended, is_alive

CONTEXT = "local"
_POLL_SECONDS = 0.1
_DOWN_SECONDS = 120.0


class PortTakenError(RuntimeError):
    """Another program listens where the gateway should."""


class NotRunningError(RuntimeError):
    """There is no suite on this home."""


@asynccontextmanager
async def running(home: Home, options: plan.Options) -> AsyncIterator[State]:
    """Run a suite within this block.

    Raises:
        HomeInUseError: another suite runs on this home.
        PortTakenError: another program listens on `options.listen` or on a port for metrics.
        StartFailedError: a process did not start; everything was stopped again.
    """
    home.prepare()
    with home.locked():
        end_leftovers(home)
        await _require_free(options)
        secrets.ensure_tokens(home.secrets)
        EmbeddedPostgres(home.postgres, home.database_sockets).prepare()
        me = Running(os.getpid(), psutil.Process().create_time())
        ready = False

        def report(processes: dict[str, Running]) -> None:
            home.write_state(State(me, options.listen, ready, processes))

        supervisor = Supervisor(home.logs, report)
        try:
            await supervisor.start(plan.stages(home, options))
            state = home.state()
            if state is None:
                raise StartFailedError("nothing was started")
            ready = True
            state = State(me, options.listen, ready, state.processes)
            home.write_state(state)
            yield state
        finally:
            await supervisor.stop()
            home.clear_state()
            home.forget_run()


async def _require_free(options: plan.Options) -> None:
    """Raise PortTakenError if another program has one of the ports."""
    wanted = {options.listen: "--listen 127.0.0.1:PORT"}
    wanted |= dict.fromkeys(plan.metrics_addresses(options).values(), "--metrics-port PORT")
    for address, option in wanted.items():
        if not await plan.is_port_free(address):
            raise PortTakenError(
                f"{address} is taken by another program: stop it, or choose another with {option}"
            )


async def serve(home: Home, options: plan.Options, *, when_ready: Callable[[], None] = lambda: None) -> None:
    """Run a suite until SIGTERM or SIGINT; calls `when_ready` once all of it answers."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(home, options):
        _log_in(home, options.listen)
        when_ready()
        await stop.wait()


def start_in_background(home: Home, options: plan.Options, *, timeout: float = 120.0) -> State:
    """Start a suite that stays when this process ends, and return when it is ready.

    Raises:
        HomeInUseError: another suite runs on this home.
        StartFailedError: it did not start; the message holds the reason.
    """
    home.prepare()
    if home.is_locked():
        with home.locked():  # says who
            pass
    log = home.logs / "supervisor.log"
    supervisor = _spawn(home, options, log)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        state = home.state()
        if state and state.ready and state.supervisor.pid == supervisor.pid:
            return state
        if not is_alive(supervisor):
            raise StartFailedError(log.read_text(errors="replace").strip() or f"see {log}")
        time.sleep(_POLL_SECONDS)
    end_leftover(supervisor, seconds=_DOWN_SECONDS)
    raise StartFailedError(f"not ready after {timeout:.0f} s; see the logs in {home.logs}")


def arguments_of(home: Home, options: plan.Options) -> list[str]:
    """Return the arguments of a supervisor of its own that serves this home with these options."""
    extra = [part for name, value in options.extra.items() for part in ("--extra", f"{name}={value}")]
    where = ["--home", str(home.root), "--listen", options.listen]
    return [*where, "--metrics-port", str(options.metrics_port), *extra]


def _spawn(home: Home, options: plan.Options, log: Path) -> Running:
    """Start a supervisor that is nobody's child, and return its process."""
    command = [sys.executable, "-m", "modelyard_suite", *arguments_of(home, options), "--daemon"]
    environment = {**os.environ, "MODELYARD_HOME": str(home.root.parent)}
    with log.open("wb") as output:
        started = subprocess.run(  # noqa: S603 - our own module
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            env=environment,
            check=False,
        )
    try:
        process = psutil.Process(int(started.stdout))
        return Running(process.pid, process.create_time())
    except (ValueError, psutil.NoSuchProcess) as error:
        raise StartFailedError(log.read_text(errors="replace").strip() or f"see {log}") from error


def stop(home: Home) -> None:
    """Stop the suite on this home and return when all of it is gone.

    Raises:
        NotRunningError: there is none.
        StartFailedError: it does not end.
    """
    state = home.state()
    if state is None or not is_alive(state.supervisor):
        left = end_leftovers(home) if state else []
        if left:
            return
        raise NotRunningError(f"no suite runs on {home.root}; `modelyard up` starts one")
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(state.supervisor.pid).terminate()
    if not has_ended(state.supervisor, seconds=_DOWN_SECONDS):
        raise StartFailedError(
            f"the supervisor (process {state.supervisor.pid}) does not end; see {home.logs}"
        )
    end_leftovers(home)


def processes_of(home: Home) -> list[str]:
    """Return the processes that were started with this home, whoever their parent is now."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue  # it has just ended, or belongs to somebody else
        if any(str(folder) in text for text in told for folder in (home.root, home.run)):
            found.append(f"{process.pid} {' '.join(told[:4])}")
    return found


def end_leftovers(home: Home) -> list[str]:
    """End what a suite left behind that was killed itself, and return the names."""
    state = home.state()
    ended = []
    for name, process in reversed(list(state.processes.items())) if state else ():
        if is_alive(process):
            ended.append(name)
            end_leftover(process, signal.SIGINT if name == "postgres" else signal.SIGTERM)
    for pid_file in (home.run / "r" / "replicas").glob("*/pid"):
        ended += _end_replica(pid_file)
    home.clear_state()
    return ended


def _end_replica(pid_file: Path) -> list[str]:
    """End the replica whose process id the launcher wrote, if the process is that replica still."""
    try:
        process = psutil.Process(int(pid_file.read_text().split()[0]))
        if "modelyard_inference.replica" not in process.cmdline():
            return []
        end_leftover(Running(process.pid, process.create_time()))
    except (ValueError, IndexError, FileNotFoundError, psutil.NoSuchProcess):
        return []
    return [f"replica {pid_file.parent.name}"]


def _log_in(home: Home, target: str) -> None:
    """Make the administrator of this suite the user of the command line on this machine."""
    token = home.token_file(secrets.ADMINISTRATOR).read_text().strip()
    contexts.save(CONTEXT, contexts.Context(target=target, token=token))


__all__ = [
    "HomeInUseError",
    "NotRunningError",
    "PortTakenError",
    "StartFailedError",
    "running",
    "serve",
    "stop",
]
