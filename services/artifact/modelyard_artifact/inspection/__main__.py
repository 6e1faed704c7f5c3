"""`python -I -m modelyard_artifact.inspection BOUNDS`: inspects the files on standard input, writes one JSON object."""

from __future__ import annotations

import json
import sys

from modelyard_artifact.inspection.bounds import Bounds
from modelyard_artifact.inspection.confine import confine


def main() -> None:
    """Inspect, confined from the first file on."""
    bounds = Bounds(**json.loads(sys.argv[1]))
    # What it needs is imported before it may open no more programs and libraries; nothing was read so far.
    from modelyard_artifact.inspection import inspect

    filtered = confine(bounds)
    result = inspect.inspect(sys.stdin.buffer, bounds)
    sys.stdout.write(json.dumps(result | {"filtered": filtered}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
