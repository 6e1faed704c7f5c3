"""Runs the gateway.

    python -m modelyard_gateway                          the agent
    python -m modelyard_gateway envoy                    Envoy, in place of this process
    python -m modelyard_gateway render-bootstrap PATH    writes the file Envoy is started with (- for standard output)

Agent and Envoy may start in any order, and either may be started again while the other runs.
"""

from __future__ import annotations

import sys

from modelyard_kit import garbage

if __name__ == "__main__":
    garbage.hold()
try:
    from modelyard_gateway.app import main
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not installed: run `pip install 'modelyard[server]'`")

if __name__ == "__main__":
    main()
