"""The supervisor as a process of its own; `modelyard up --detach` starts it."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from modelyard_suite import plan, suite
from modelyard_suite.home import Home


def main() -> None:
    """Run a suite until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m modelyard_suite", description=__doc__)
    parser.add_argument("--home", type=Path, required=True, help="folder of the suite")
    parser.add_argument("--listen", default=plan.Options().listen, help="host:port of the gateway")
    arguments = parser.parse_args()
    try:
        asyncio.run(suite.serve(Home(arguments.home), plan.Options(listen=arguments.listen)))
    except (suite.HomeInUseError, suite.PortTakenError, suite.StartFailedError, PermissionError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
