"""The supervisor as a process of its own; `modelyard up --detach` starts it."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from modelyard_suite import plan, suite
from modelyard_suite.home import Home


def main() -> None:
    """Run a suite until SIGTERM."""
    arguments = _parser().parse_args()
    if arguments.daemon:
        _become_daemon()
    try:
        asyncio.run(suite.serve(Home(arguments.home), _options(arguments)))
    except (suite.HomeInUseError, suite.PortTakenError, suite.StartFailedError, PermissionError) as error:
        sys.exit(str(error))


def options_of(arguments: Sequence[str]) -> plan.Options:
    """Return what the arguments say of a suite; the other way round is `suite.arguments_of`."""
    return _options(_parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m modelyard_suite", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the suite")
    parser.add_argument("--listen", default=plan.Options().listen, help="host:port of the gateway")
    parser.add_argument("--metrics-port", type=int, default=0, help="first port for Prometheus; 0: none")
    parser.add_argument(
        "--extra",
        action="append",
        type=_setting,
        default=[],
        metavar="NAME=VALUE",
        help="a setting for every process, without the prefix of its variable; may be repeated",
    )
    parser.add_argument(
        "--daemon", action="store_true", help="print the process id and go on in the background"
    )
    return parser


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _options(arguments: argparse.Namespace) -> plan.Options:
    return plan.Options(
        listen=arguments.listen, metrics_port=arguments.metrics_port, extra=dict(arguments.extra)
    )


def _become_daemon() -> None:
    """Leave the caller: it gets the process id on standard output, and this process a session of its own."""
    child = os.fork()
    if child:
        print(child)  # noqa: T201 - the answer to the caller
        sys.stdout.flush()
        os._exit(0)
    os.setsid()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


if __name__ == "__main__":
    main()
