"""A replica from start to end: listen, load, warm up, serve, drain."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from modelyard_inference.evidence import Verdict
from modelyard_inference.replica import logs, tracing
from modelyard_inference.replica.config import WAITING, ReplicaConfig, write_status
from modelyard_inference.replica.contract import Contract
from modelyard_inference.replica.engine import Engine, Predictor
from modelyard_inference.replica.front import Front, MakeFront
from modelyard_inference.replica.grpc_front import GrpcFront
from modelyard_inference.replica.journal import Journal
from modelyard_inference.replica.lifecycle import Lifecycle, State
from modelyard_inference.replica.remote import Remote
from modelyard_inference.replica.servicer import Servicer
from modelyard_inference.replica.verification import verify
from modelyard_inference.runtimes import REMOTE, LoadError
from modelyard_kit import garbage

log: Any = structlog.get_logger()
_FAILED: Final = 1
_BAD_CONFIGURATION: Final = 2
# Room above the limit, so that a body somewhat too large gets an answer that names the limit.
_SLACK: Final = 2
_GRACE_SECONDS: Final = 1.0


class Replica:
    """One replica inside a running event loop."""

    def __init__(self, config: ReplicaConfig, *, make_front: MakeFront = GrpcFront) -> None:
        self.config = config
        self.lifecycle = Lifecycle()
        self.stuck = False
        """Whether the model's thread went on after `stop`."""
        self._remote = Remote(config) if config.runtime == REMOTE else None
        self._engine: Predictor = self._remote or Engine(config)
        self.exhausted = self._engine.exhausted
        """Set when its memory is used up for good."""
        wrap, self._flush = tracing.start(config)
        # Beside its log, where a launcher gave it one.
        journal = Journal(Path(config.log_file).parent if config.log_file else None, config.log_policy)
        servicer = Servicer(Contract(config), self._engine, self.lifecycle, journal)
        self._front: Front = make_front(
            servicer.routes(wrap), listen=config.listen, max_message_bytes=config.max_request_bytes * _SLACK
        )

    async def start(self) -> None:
        """Listen (NOT_SERVING), load the model, warm it up, then serve.

        Raises:
            LoadError: if the model cannot be loaded.
            MemoryError: if there is too little memory for it.
            OSError: if the address cannot be used.
        """
        await self._front.start()
        await self._engine.load()
        self.lifecycle.move(State.READY)

    async def follow(self, tell: Callable[[str], None]) -> None:
        """Be ready only while the server that runs the model is, for ever; `tell` is told why not, or "" when it is again."""
        if self._remote is None:
            return
        async with aclosing(self._remote.troubles()) as troubles:
            async for problem in troubles:
                self.lifecycle.move(State.WAITING if problem else State.READY)
                tell(problem)

    async def drain(self) -> None:
        """Refuse what is new, finish what is in flight within `drain_seconds`, stop listening."""
        self.lifecycle.move(State.DRAINING)
        try:
            async with asyncio.timeout(self.config.drain_seconds):
                await self.lifecycle.idle()
        except TimeoutError:
            log.warning("drain_timed_out", in_flight=self.lifecycle.in_flight)
        await self.stop()

    async def stop(self) -> None:
        """Stop at once; calls in flight get a second to send their answers, the model one to finish."""
        await self._front.stop(_GRACE_SECONDS)
        self.stuck = not await self._engine.close(within_seconds=_GRACE_SECONDS)
        await asyncio.to_thread(self._flush)


def main(config_path: Path) -> int:
    """Run a replica until it is told to stop; return the exit status."""
    try:
        config = ReplicaConfig.load(config_path)
    except (OSError, ValueError) as error:
        logs.configure_without_config()
        log.error("replica_failed", problem=f"{config_path}: {error}")  # noqa: TRY400  the text says it all
        _try_write_status(config_path, "failed", f"{config_path}: {error}")
        return _BAD_CONFIGURATION
    log_file = logs.configure(config)
    structlog.contextvars.bind_contextvars(
        deployment=config.deployment, model_version=f"{config.model}/{config.version}"
    )
    _try_write_status(config_path, "loading")
    try:
        return uvloop.run(_serve(config, config_path, log_file))
    finally:
        logs.finish()


async def _serve(config: ReplicaConfig, config_path: Path, log_file: logs.LogFile) -> int:
    checking = asyncio.ensure_future(_keep_small(log_file))
    try:
        return await _load_and_answer(config, config_path)
    finally:
        checking.cancel()


async def _load_and_answer(config: ReplicaConfig, config_path: Path) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    # The service that started this process may end; its predictions go on.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    replica = Replica(config)
    starting = asyncio.ensure_future(_start(replica, config_path))
    asked_to_stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait((starting, asked_to_stop), return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        log.info("replica_stopped_while_loading")
        _leave(0)
    try:
        verdict = starting.result()
    except (LoadError, OSError) as error:
        return await _fail(replica, config_path, str(error))
    except MemoryError:
        return await _fail(replica, config_path, _too_little_memory(config, "to load the model"))
    except Exception as error:  # a runtime may raise anything; the launcher must be told
        log.exception("load_raised")
        return await _fail(replica, config_path, f"{type(error).__name__}: {error}")
    return await _answer(replica, config_path, verdict, asked_to_stop)


async def _answer(
    replica: Replica, config_path: Path, verdict: Verdict, asked_to_stop: asyncio.Future[Any]
) -> int:
    """Answer predictions until the replica is told to stop, or runs out of memory; return the exit status."""
    config = replica.config
    garbage.settle()
    _try_write_status(config_path, "ready", verdict=verdict)
    log.info(
        "replica_ready",
        listen=config.listen,
        process_id=os.getpid(),
        signature=verdict.state,
        signer=verdict.signer,
    )

    def tell(problem: str) -> None:
        log.warning("backend_not_ready", problem=problem) if problem else log.info("backend_ready")
        _try_write_status(config_path, WAITING if problem else "ready", problem, verdict=verdict)

    following = asyncio.ensure_future(replica.follow(tell))
    exhausted = asyncio.ensure_future(replica.exhausted.wait())
    await asyncio.wait((asked_to_stop, exhausted), return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    if not asked_to_stop.done():
        return await _fail(replica, config_path, _too_little_memory(config, "for its smallest input"))
    log.info("replica_draining", in_flight=replica.lifecycle.in_flight)
    _try_write_status(config_path, "draining", verdict=verdict)
    await replica.drain()
    log.info("replica_stopped", stuck=replica.stuck)
    if replica.stuck:
        _leave(0)
    return 0


async def _keep_small(log_file: logs.LogFile) -> None:
    """Look after the log for ever: native code fills it unseen."""
    while log_file.captured:
        await asyncio.sleep(logs.CHECK_SECONDS)
        log_file.check()


async def _start(replica: Replica, config_path: Path) -> Verdict:
    """Check the signatures of the artifact, say what came out, and only then load it."""
    config = replica.config
    verdict = await asyncio.to_thread(
        verify, config.model_directory, config.evidence, required=config.require_signature
    )
    _try_write_status(config_path, "loading", verdict=verdict)
    await replica.start()
    return verdict


async def _fail(replica: Replica, config_path: Path, message: str) -> int:
    log.error("replica_failed", problem=message)
    _try_write_status(config_path, "failed", message)
    await replica.stop()
    if replica.stuck:
        _leave(_FAILED)
    return _FAILED


def _too_little_memory(config: ReplicaConfig, what: str) -> str:
    bound = (
        f"more than the {config.memory_bytes} bytes it may use"
        if config.memory_bytes
        else "more than there is"
    )
    return f"out of memory {what}: it needs {bound}"


def _leave(status: int) -> None:
    """End the process though the model's thread is still busy; nothing can stop a thread."""
    logs.finish()
    sys.stderr.flush()
    os._exit(status)


def _try_write_status(
    config_path: Path, state: str, message: str = "", *, verdict: Verdict | None = None
) -> None:
    try:
        write_status(config_path, state, message, verdict=verdict)
    except OSError as error:
        # Serving matters more than saying so: the folder may be gone with the service that made it.
        log.warning("status_not_written", problem=str(error))
