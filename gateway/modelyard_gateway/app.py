"""The composition root: the verbs of the command line, and what each is made of."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import yaml

from modelyard_gateway import envoy
from modelyard_gateway.admin import Admin
from modelyard_gateway.apply import Applier
from modelyard_gateway.render import bootstrap
from modelyard_gateway.settings import GatewaySettings
from modelyard_kit.config import load

_HEADER = "# Written by `python -m modelyard_gateway render-bootstrap`; change gateway/modelyard_gateway/render.py instead.\n"


def main() -> None:
    """Run the verb of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m modelyard_gateway", description="The gateway of Modelyard."
    )
    verbs = parser.add_subparsers(dest="verb")
    verbs.add_parser("agent", help="configure Envoy (default)")
    verbs.add_parser("envoy", help="run Envoy in place of this process")
    render = verbs.add_parser("render-bootstrap", help="write the file Envoy is started with")
    render.add_argument("path", help="file to write; - for standard output")
    arguments = parser.parse_args()
    settings = load(GatewaySettings)
    if arguments.verb == "render-bootstrap":
        _write_bootstrap(settings, arguments.path)
    elif arguments.verb == "envoy":
        _exec_envoy(settings)
    else:
        _run_agent(settings)


def bootstrap_yaml(settings: GatewaySettings) -> str:
    """Return the file Envoy is started with, as it is committed for containers."""
    return _HEADER + yaml.safe_dump(bootstrap(settings), sort_keys=False)


def _write_bootstrap(settings: GatewaySettings, path: str) -> None:
    text = bootstrap_yaml(settings)
    if path == "-":
        sys.stdout.write(text)
    else:
        Path(path).write_text(text, encoding="utf-8")


def _exec_envoy(settings: GatewaySettings) -> None:
    """Become Envoy. The files it reads are made first, in case the agent has not started yet."""
    try:
        command = envoy.command(settings)
        for address in filter(None, (settings.listen, settings.private_listen)):
            envoy.check_port(address)
    except (envoy.EnvoyMissingError, envoy.PortTakenError) as error:
        sys.exit(str(error))
    Applier(settings, Admin(settings.admin_socket)).prepare()
    # An earlier Envoy that was killed leaves its socket, on which the next cannot listen.
    settings.admin_socket.unlink(missing_ok=True)
    os.execv(command[0], command)  # noqa: S606 - becoming Envoy is the purpose


def _run_agent(settings: GatewaySettings) -> None:
    # What the agent alone needs: Envoy starts in half the time without it.
    import uvloop

    from modelyard_kit import telemetry

    telemetry.configure_logging(settings, "gateway")
    provider = telemetry.start(settings, "gateway")
    try:
        uvloop.run(_until_stopped(settings))
    finally:
        if provider:
            provider.shutdown()


async def _until_stopped(settings: GatewaySettings) -> None:
    import structlog

    from modelyard_gateway import envoy_metrics
    from modelyard_gateway.agent import Agent
    from modelyard_kit import garbage
    from modelyard_kit.grants import Grants
    from modelyard_kit.peers import Peers

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    admin = Admin(settings.admin_socket)
    peers = Peers(settings)
    grants = Grants(bound=settings.permission_bound_seconds)
    agent = Agent(settings, peers, grants, admin, Applier(settings, admin))
    working = asyncio.create_task(agent.run())
    waiter = asyncio.create_task(stop.wait())
    garbage.settle()
    try:
        with (
            envoy_metrics.offered(admin, lambda: agent.applied)
            if settings.metrics_listen
            else contextlib.nullcontext()
        ):
            await asyncio.wait((working, waiter), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
    finally:
        working.cancel()
        waiter.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        await peers.close()
        structlog.get_logger().info("stopped")
