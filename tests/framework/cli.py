"""The command `modelyard` as a person runs it, with a home of its own: in this process, or as one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from modelyard.cli import app

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
    """Runs `modelyard` with `MODELYARD_HOME` set to this folder, and with `settings`, but nothing else of the caller's.

    A process for each command costs a second of processor time before the command begins, so only those are given one whose
    tests are about processes: `apart`.
    """

    home: Path
    apart: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of the command."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
        own = {"MODELYARD_HOME": str(self.home), "MODELYARD_CACHE": str(self.home / "cache")}
        return {**kept, **own, **self.settings}

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> Finished:
        """Run it to its end."""
        run = self._run_apart if self.apart else self._run_here
        return run(arguments, stdin, {**self.environment, **environment})

    def _run_here(self, arguments: tuple[str, ...], stdin: str, environment: Mapping[str, str]) -> Finished:
        without = {name: None for name in os.environ if name not in environment}
        ended = CliRunner(env={**without, **environment}).invoke(app, list(arguments), input=stdin)
        told = ended.stderr
        if ended.exception and not isinstance(ended.exception, SystemExit):
            told += "".join(traceback.format_exception(ended.exception))
        return Finished(ended.exit_code, ended.stdout, told)

    def _run_apart(self, arguments: tuple[str, ...], stdin: str, environment: Mapping[str, str]) -> Finished:
        ended = subprocess.run(
            [str(PROGRAM), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
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
