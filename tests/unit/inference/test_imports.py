"""What the control plane leaves alone, so that it starts fast."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("numpy", "model_signing", "opentelemetry.sdk", "sklearn", "onnxruntime")


def test_the_control_plane_loads_nothing_that_only_replicas_or_exporters_need() -> None:
    code = f"import sys, modelyard_inference.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
