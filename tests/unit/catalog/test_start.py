"""Starting without what is needed says what to do."""

from __future__ import annotations

import subprocess
import sys

START = "import runpy, sys; sys.modules['sqlalchemy'] = None; runpy.run_module('modelyard_catalog', run_name='__main__')"


def test_missing_extra_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "needs sqlalchemy" in done.stderr
    assert "pip install 'modelyard[server]'" in done.stderr
    assert "Traceback" not in done.stderr
