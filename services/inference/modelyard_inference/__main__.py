"""`python -m modelyard_inference`: run the inference service; its settings are environment variables `MODELYARD_*`."""

from __future__ import annotations

import sys

from modelyard_kit import garbage

if __name__ == "__main__":
    garbage.hold()
try:
    from modelyard_inference.app import InferenceSettings, build
    from modelyard_kit.chassis import main
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0].startswith("modelyard"):
        raise
    sys.exit(
        f"the inference service needs {error.name}, which is not installed: pip install 'modelyard[server]'"
    )

if __name__ == "__main__":
    main(InferenceSettings, build, package="modelyard_inference")
