"""Replicas as processes of this machine.

    <run folder>/s/<name>              socket of a replica; Envoy connects here
    <run folder>/replicas/<id>/pid     its process id
                               config.json, config.json.status, log, log.1 … (runs before, and what was full), access, predict

A replica is a session of its own, so it survives this service and its terminal. The process writes its own `pid` file before it
becomes the replica, so that it is found even if this service dies the moment after it was started.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import structlog

from modelyard_inference import log_files
from modelyard_inference.launchers import Found, Handle, LaunchFailed, ReplicaSpec, bounds, processes
from modelyard_inference.log_files import REPLICA, Piece, Position, Wanted
from modelyard_inference.replica.config import WAITING, ReplicaConfig, read_status, read_verdict, status_path

SOCKET_PATH_BYTES = 103
_SOCKET_NAME_LENGTH = len("/s/") + 12
TAIL_CHARACTERS = 2_000
_TAIL = Wanted(tail=40)
# What a replica may see of this service's environment: never its tokens and addresses.
_ENVIRONMENT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "CUDA_VISIBLE_DEVICES",
)  # fmt: skip
# The shell bounds its memory, notes the process id and becomes the replica; $0 is the pid file, $1 the bound.
_WRAPPER = '[ -z "$1" ] || ulimit -d "$1" && shift && echo $$ > "$0.new" && mv -f "$0.new" "$0" && exec "$@"'
# How a process ends that asked for memory it may not have and does not know what to do without.
_SHORT_OF_MEMORY = (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)

_log = structlog.get_logger()


class RunFolderUnusable(Exception):
    """The run folder cannot hold sockets; the message says what to set instead."""


class LocalLauncher:
    """Starts replicas as processes of this machine.

    Args:
        run_folder: absolute; short, because the path of a socket is.
        command: what to run, with `--config FILE` after it; its first word is a Python.
    """

    def __init__(self, run_folder: Path, command: Sequence[str]) -> None:
        self._run_folder = run_folder
        self._command = tuple(command)
        self._exit_codes: dict[str, int] = {}

    def prepare(self) -> None:
        """Make the folders, for this user alone.

        Raises:
            RunFolderUnusable: the path is relative or too long, or the folders belong to somebody else.
        """
        room = SOCKET_PATH_BYTES - _SOCKET_NAME_LENGTH
        if not self._run_folder.is_absolute() or len(os.fsencode(self._run_folder)) > room:
            raise RunFolderUnusable(
                f"the run folder {str(self._run_folder)!r} must be absolute and at most {room} bytes long, because"
                f" the path of a socket is at most {SOCKET_PATH_BYTES}: set MODELYARD_RUN_DIRECTORY to a shorter one"
            )
        for folder in (self._run_folder, self._run_folder / "s", self._run_folder / "replicas"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_uid != os.geteuid():
                raise RunFolderUnusable(
                    f"{folder} belongs to another user: set MODELYARD_RUN_DIRECTORY to an own folder"
                )
            folder.chmod(0o700)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other services out of the run folder within this block: each would end replicas that it does not know.

        Raises:
            RunFolderUnusable: another one works in it.
        """
        with (self._run_folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFolderUnusable(
                    f"another inference service works in {self._run_folder}: stop it, or set MODELYARD_RUN_DIRECTORY to a"
                    " folder of its own"
                ) from error
            yield

    def address(self, replica_id: str) -> str:
        """Return the socket of a replica."""
        return f"unix:{self._run_folder}/s/{replica_id.replace('-', '')[-12:]}"

    async def start(self, spec: ReplicaSpec) -> Handle:
        """Start a replica, or return the process that runs for its id already.

        Raises:
            LaunchFailed: it cannot be started.
        """
        running = await asyncio.to_thread(self._find, spec.id)
        if running:
            return running
        try:
            return await asyncio.to_thread(self._spawn, spec)
        except OSError as error:
            raise LaunchFailed(f"the process could not be started: {error}") from error

    async def status(self, handle: Handle) -> Found:
        """Return what a process is doing."""
        return await asyncio.to_thread(self._status, handle)

    async def stop(self, handle: Handle, grace: float) -> None:
        """Ask a process to finish, kill it after `grace` seconds; return when it is gone."""
        deadline = time.monotonic() + grace
        self._signal(handle, signal.SIGTERM)
        while (await self.status(handle)).running:
            if time.monotonic() >= deadline:
                _log.warning(
                    "replica_killed", replica=handle.replica_id, process_id=handle.process_id, grace=grace
                )
                self._signal(handle, signal.SIGKILL)
                deadline += 1.0
            await asyncio.sleep(0.05)

    async def list(self) -> Collection[Handle]:
        """Return every replica process that runs in this run folder, whoever started it."""
        return await asyncio.to_thread(lambda: [h for h in map(self._find, self._ids()) if h])

    async def log_tail(self, replica_id: str, wanted: Wanted, log: str = REPLICA) -> Piece:
        """Return the last lines of a log of a replica that are wanted."""
        return await asyncio.to_thread(log_files.tail, self._folder(replica_id) / log, wanted)

    async def log_on(self, replica_id: str, position: Position | None, log: str = REPLICA) -> Piece:
        """Return the next lines of a log after a position, or from the oldest on."""
        return await asyncio.to_thread(log_files.read_on, self._folder(replica_id) / log, position)

    async def forget(self, replica_id: str) -> None:
        """Remove the files of a replica whose process is gone."""
        self._exit_codes.pop(replica_id, None)
        await asyncio.to_thread(shutil.rmtree, self._folder(replica_id), ignore_errors=True)
        socket = Path(self.address(replica_id).removeprefix("unix:"))
        await asyncio.to_thread(socket.unlink, missing_ok=True)

    def _ids(self) -> Iterable[str]:
        return [path.name for path in (self._run_folder / "replicas").iterdir() if path.is_dir()]

    def _process_ids(self) -> Iterable[int]:
        return [handle.process_id for handle in map(self._find, self._ids()) if handle]

    def _folder(self, replica_id: str) -> Path:
        return self._run_folder / "replicas" / replica_id

    def _log(self, replica_id: str) -> Path:
        return self._folder(replica_id) / REPLICA

    def _config(self, replica_id: str) -> Path:
        return self._folder(replica_id) / "config.json"

    def _find(self, replica_id: str) -> Handle | None:
        """Return the live process of a replica. Its command names the configuration file, as no other's does."""
        try:
            process_id = int((self._folder(replica_id) / "pid").read_text())
        except (OSError, ValueError):
            return None
        started = processes.start_time(process_id)
        if not started or str(self._config(replica_id)) not in processes.command_line(process_id):
            return None
        return Handle(replica_id, process_id, started)

    def _spawn(self, spec: ReplicaSpec) -> Handle:
        folder, config = self._folder(spec.id), self._config(spec.id)
        folder.mkdir(mode=0o700, exist_ok=True)
        for stale in (folder / "pid", status_path(config)):
            stale.unlink(missing_ok=True)
        Path(self.address(spec.id).removeprefix("unix:")).unlink(missing_ok=True)
        replace(spec.config, log_file=str(self._log(spec.id))).dump(config)
        command = (spec.python, *self._command[1:]) if spec.python else self._command
        # An environment of its own sees no packages of this service.
        hidden = ("PYTHONPATH", "VIRTUAL_ENV") if spec.python else ()
        environment = {
            name: os.environ[name] for name in _ENVIRONMENT if name in os.environ and name not in hidden
        }
        environment |= {
            **dict(spec.variables),
            "PYTHONUNBUFFERED": "1",
            **bounds.threads_environment(spec.config),
        }
        memory = bounds.data_limit(spec.config.memory_bytes)
        with (
            log_files.begin(self._log(spec.id)) as output,
            bounds.on_cores(spec.config.cpus, self._process_ids()),
        ):
            child = subprocess.Popen(  # noqa: S603 - the command is ours; only the path of the file varies
                ["/bin/sh", "-c", _WRAPPER, str(folder / "pid"), memory, *command, "--config", str(config)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child.returncode = 0  # the process outlives this object; its end is collected by its id
        self._exit_codes.pop(spec.id, None)
        started = processes.start_time(child.pid)
        while not (folder / "pid").exists() and processes.start_time(child.pid):
            time.sleep(0.002)  # moments: from here on it can be found
        return Handle(spec.id, child.pid, started)

    def _status(self, handle: Handle) -> Found:
        started = processes.start_time(handle.process_id)
        if started and started == handle.started:
            verdict = read_verdict(self._config(handle.replica_id))
            state, message = self._said(handle.replica_id)
            report = ": ".join(filter(None, (state, message)))
            problem = message if state == WAITING else ""
            return Found(running=True, report=report, verdict=verdict, problem=problem)
        if not started:
            ending, code = processes.collect(handle.process_id)
            if ending:
                return Found(running=True)
            if code is not None:
                self._exit_codes[handle.replica_id] = code
        return Found(running=False, report=self._ending(handle.replica_id))

    def _said(self, replica_id: str) -> tuple[str, str]:
        """Return the state that a replica wrote down, and the message with it."""
        status = read_status(self._config(replica_id))
        return str(status.get("state") or ""), str(status.get("message") or "")

    def _ending(self, replica_id: str) -> str:
        status, code = read_status(self._config(replica_id)), self._exit_codes.get(replica_id)
        if status.get("state") == "failed" and status.get("message"):
            what = str(status["message"])
        elif code is None:
            what = "its process is gone"
        elif code < 0:
            what = f"its process was ended by {signal.Signals(-code).name}"
            if -code in _SHORT_OF_MEMORY and (memory := self._memory_bytes(replica_id)):
                what += f", as happens to one that needs more memory than it may use, {memory} bytes"
            elif -code == signal.SIGKILL:
                what += ": by hand, or by the kernel because the machine or the container ran short of memory"
        else:
            what = f"its process ended with exit code {code}"
        tail = _tail(self._log(replica_id))
        return f"{what}\n{tail}" if tail else what

    def _memory_bytes(self, replica_id: str) -> int:
        try:
            return ReplicaConfig.load(self._config(replica_id)).memory_bytes
        except (OSError, ValueError):  # gone, or written by another release
            return 0

    def _signal(self, handle: Handle, number: signal.Signals) -> None:
        """Send a signal to exactly the process of the handle, or to its whole session to kill."""
        if processes.start_time(handle.process_id) != handle.started:
            return
        try:
            if number is signal.SIGKILL:
                os.killpg(handle.process_id, number)
            else:
                os.kill(handle.process_id, number)
        except ProcessLookupError:
            pass


def _tail(log: Path) -> str:
    """Return the last lines that a log has of the last start, the end of them if they are long.

    Everybody who sees the deployment reads them, so what was written while predictions were computed, and may hold theirs, is left out.
    """
    lines = reversed(log_files.tail(log, _TAIL).lines)
    started = takewhile(lambda line: line.logger != log_files.LAUNCHER, lines)
    told = [line for line in started if not line.request_ids]
    return "\n".join(map(log_files.text_of, reversed(told)))[-TAIL_CHARACTERS:].strip()
