"""`python -m modelyard_governance` runs the service; its settings are environment variables `MODELYARD_*`."""

from __future__ import annotations

import sys

from modelyard_kit import garbage

if __name__ == "__main__":
    garbage.hold()
try:
    from modelyard_governance.app import GovernanceSettings, build
    from modelyard_kit.chassis import main
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not installed: pip install 'modelyard[server]'")

if __name__ == "__main__":
    main(GovernanceSettings, build, package="modelyard_governance")
