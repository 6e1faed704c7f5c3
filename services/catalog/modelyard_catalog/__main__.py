"""`python -m modelyard_catalog`: run the catalog service."""

from __future__ import annotations

import sys

from modelyard_kit import garbage

if __name__ == "__main__":
    garbage.hold()
try:
    from modelyard_catalog.app import main
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0].startswith("modelyard"):
        raise
    sys.exit(
        f"the catalog service needs {error.name}, which is not installed: pip install 'modelyard[server]'"
    )

if __name__ == "__main__":
    main()
