"""`python -m modelyard_inference.replica --config FILE`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from modelyard_kit import garbage

# Replicas share a machine and are many; a pool of threads per core in each makes all of them slower. Set by the launcher
# if a model wants more. numpy reads these when it is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def run() -> int:
    """Parse the command line and run the replica."""
    parser = argparse.ArgumentParser(prog="python -m modelyard_inference.replica", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="JSON file written by the launcher")
    arguments = parser.parse_args()
    try:
        from modelyard_inference.replica.app import main
    except ImportError as error:
        sys.exit(f"a replica needs {error.name}: pip install 'modelyard[server]'")
    return main(arguments.config)


if __name__ == "__main__":
    garbage.hold()
    sys.exit(run())
