"""Where a suite keeps its things, and the lock that lets only one suite use them.

    <home>/            0700 (0711 as root, so that PostgreSQL's own user can reach its folder)
      secrets/         0700: API tokens and the signing key, each 0600
      postgres/        the database
      blobs/ cache/    artifacts stored, artifacts unpacked for replicas
      staging/         content on its way to S3, if that is where artifacts are stored
      logs/            one file for each process
      state.json       what runs, while it runs

Sockets, and the configuration that Envoy watches, live in a run folder of their own, because a socket's path may have about 100 bytes only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelyard import contexts

# Longest name below the run folder: `replicas/<uuid>/grpc.sock` and the like.
_LONGEST_BELOW_RUN = 64
_SOCKET_PATH_BYTES = 103


class HomeInUseError(RuntimeError):
    """Another suite runs on this home."""


@dataclass(frozen=True)
class Running:
    """One process of a running suite; the start time guards against a process id given out again."""

    pid: int
    start_time: float
    restarts: int = 0


@dataclass(frozen=True)
class State:
    """What a running suite tells about itself."""

    supervisor: Running
    target: str
    ready: bool
    processes: dict[str, Running] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> State:
        """Return the state in a JSON text."""
        raw: dict[str, Any] = json.loads(text)
        processes = {name: Running(**one) for name, one in raw["processes"].items()}
        return cls(Running(**raw["supervisor"]), raw["target"], bool(raw["ready"]), processes)


@dataclass(frozen=True)
class Home:
    """The folders of one suite."""

    root: Path

    @property
    def secrets(self) -> Path:
        """Tokens and keys."""
        return self.root / "secrets"

    @property
    def postgres(self) -> Path:
        """The database's files."""
        return self.root / "postgres"

    @property
    def blobs(self) -> Path:
        """The bytes of artifacts."""
        return self.root / "blobs"

    @property
    def staging(self) -> Path:
        """Content on its way to S3."""
        return self.root / "staging"

    @property
    def cache(self) -> Path:
        """Artifacts unpacked for replicas."""
        return self.root / "cache"

    @property
    def envoy(self) -> Path:
        """The configuration that Envoy watches, and its sockets."""
        return self.run / "envoy"

    @property
    def logs(self) -> Path:
        """One file for each process."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Sockets and process ids: below the home if that is short enough, else in the temporary folder."""
        inside = self.root / "run"
        if len(os.fsencode(inside)) + _LONGEST_BELOW_RUN <= _SOCKET_PATH_BYTES:
            return inside
        digest = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"modelyard-{os.getuid()}-{digest}"

    @property
    def sockets(self) -> Path:
        """Sockets of the services."""
        return self.run / "s"

    @property
    def database_sockets(self) -> Path:
        """Socket of PostgreSQL."""
        return self.run / "pg"

    def prepare(self) -> None:
        """Make every folder, closed to other users.

        Raises:
            PermissionError: a folder belongs to somebody else.
        """
        outer = 0o711 if os.geteuid() == 0 else 0o700
        for folder, mode in (
            (self.root, outer),
            (self.run, outer),
            (self.secrets, 0o700),
            (self.blobs, 0o700),
            (self.cache, 0o700),
            (self.envoy, 0o700),
            (self.logs, 0o700),
            (self.sockets, 0o700),
        ):
            folder.mkdir(parents=True, exist_ok=True, mode=mode)
            if folder.stat().st_uid != os.geteuid():
                raise PermissionError(
                    f"{folder} belongs to another user: set MODELYARD_HOME to a folder of yours"
                )
            folder.chmod(mode)

    def forget_run(self) -> None:
        """Delete a run folder outside of the home when nothing runs any more; what is in it is made again at every start."""
        if not self.run.is_relative_to(self.root):
            shutil.rmtree(self.run, ignore_errors=True)

    def socket(self, name: str) -> str:
        """Return the address of a service."""
        return f"unix:{self.sockets / name}.sock"

    def token_file(self, name: str) -> Path:
        """Return the file with the API token of a principal."""
        return self.secrets / f"{name}.token"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home for this process.

        Raises:
            HomeInUseError: a suite runs on it.
        """
        with (self.root / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise HomeInUseError(
                    f"a suite is running on {self.root}: `modelyard status` shows it, `modelyard down` stops it; "
                    "or set MODELYARD_HOME to another folder"
                ) from error
            yield

    def is_locked(self) -> bool:
        """Return whether a suite runs on this home."""
        if not self.root.exists():
            return False
        try:
            with self.locked():
                return False
        except HomeInUseError:
            return True

    def state(self) -> State | None:
        """Return what the last suite on this home wrote about itself, or None."""
        try:
            return State.parse((self.root / "state.json").read_text())
        except FileNotFoundError:
            return None

    def write_state(self, state: State) -> None:
        """Replace the state, whole or not at all."""
        temporary = self.root / "state.json.new"
        temporary.write_text(json.dumps(asdict(state), indent=1))
        temporary.replace(self.root / "state.json")

    def clear_state(self) -> None:
        """Forget the state."""
        (self.root / "state.json").unlink(missing_ok=True)


def suite_home() -> Home:
    """Return the suite's folder below the home directory of Modelyard."""
    return Home(contexts.home() / "suite")
