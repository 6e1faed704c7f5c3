"""`python -m modelyard_artifact`."""

from __future__ import annotations

import sys

from modelyard_kit import garbage

if __name__ == "__main__":
    garbage.hold()
try:
    from modelyard_artifact.app import main
except ModuleNotFoundError as error:
    sys.exit(f"the artifact service needs {error.name}: pip install 'modelyard[server]'")

if __name__ == "__main__":
    main()
