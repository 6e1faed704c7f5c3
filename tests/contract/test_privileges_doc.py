"""docs/privileges.md says what the services decide by."""

from __future__ import annotations

import subprocess
import sys

from .catalogue import ROOT, rpcs


def test_the_document_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate_privileges.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_rpc_is_in_it() -> None:
    text = (ROOT / "docs" / "privileges.md").read_text(encoding="utf-8")
    missing = [str(rpc) for rpc in rpcs() if f"| `{rpc.name}` |" not in text]
    assert not missing
