"""The tour in README.md, run as it is written, on a suite of its own."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOWN_TARGET = "127.0.0.1:8080"
PROGRAMS = {"sh": ["bash", "-euo", "pipefail"], "python": [sys.executable]}


def blocks() -> list[tuple[str, str]]:
    """Language and text of each code block of the tour, in order."""
    tour = (ROOT / "README.md").read_text(encoding="utf-8").partition("## A tour")[2]
    return re.findall(r"^```(\w+)\n(.*?)^```$", tour, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Machine:
    """A folder, a home and a port that nothing else uses."""

    folder: Path
    target: str

    def run(self, language: str, text: str) -> str:
        """Run a block and return what it printed."""
        # The environment is installed already, and another port is used than the one people would.
        text = text.replace("make install\n", "").replace(SHOWN_TARGET, self.target)
        text = text.replace("modelyard up --detach", f"modelyard up --detach --listen {self.target}")
        file = self.folder / "block"
        file.write_text(text, encoding="utf-8")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {
            "MODELYARD_HOME": str(self.folder / "home"),
            "PATH": path,
            "COLUMNS": "200",
        }
        done = subprocess.run(
            [*PROGRAMS[language], str(file)],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Machine(tmp_path, f"127.0.0.1:{probe.getsockname()[1]}")
    yield made
    made.run("sh", "modelyard status > /dev/null && modelyard down || true")


def test_the_tour_goes_as_it_is_told(machine: Machine) -> None:
    printed = [machine.run(language, text) for language, text in blocks()]
    up, log, policy, approve, deploy, predict, curl, audit = printed
    assert "admin" in up
    assert "prod.oncology.tumour/1 READY sha256:" in log
    assert "refused, as it should be" in policy
    assert approve.strip() == "APPROVED"
    assert deploy.count("READY") == 2
    by_client, by_stub, by_triton = predict.strip().splitlines()
    labels = by_client.partition("]")[0]
    assert by_stub.startswith(labels)
    assert by_triton.startswith(labels)
    assert '"model_version":"1"' in curl.replace(" ", "")
    assert re.search(r"valid +yes", audit)
