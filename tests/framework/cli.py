"""The command `modelyard` as a person runs it: a process of its own, with a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("modelyard")
SECONDS = 120.0


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as the JSON it is."""
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """Runs `modelyard` with `MODELYARD_HOME` set to this folder, and nothing else of the caller's settings."""

    home: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of the command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
        return {**kept, "MODELYARD_HOME": str(self.home), "MODELYARD_CACHE": str(self.home / "cache")}

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Finished:
        """Run it to its end."""
        ended = subprocess.run(
            [str(PROGRAM), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={**self.environment, **environment},
            check=False,
            timeout=SECONDS,
        )
        return Finished(ended.returncode, ended.stdout, ended.stderr)

    def ok(self, *arguments: str) -> Finished:
        """Run it, and expect success without a word of complaint."""
        ended = self.run(*arguments)
        assert ended.code == 0, f"modelyard {' '.join(arguments)}\n{ended.out}\n{ended.err}"
        assert "Traceback" not in ended.err
        return ended

    def json(self, *arguments: str) -> Any:
        """Run it with `--output json`, expect success, and return the answer."""
        return self.ok(*arguments, "--output", "json").json

    def refused(self, *arguments: str, code: int = 1) -> str:
        """Run it, expect this exit code and nothing on standard output, and return what it says on standard error."""
        ended = self.run(*arguments)
        assert (ended.code, ended.out) == (code, ""), f"modelyard {' '.join(arguments)}\n{ended}"
        assert "Traceback" not in ended.err
        return ended.err
