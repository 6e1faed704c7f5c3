"""The tour in README.md, run as it stands there: every block, in order, on a home of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from modelyard_suite import plan
from modelyard_suite.home import Home

README = Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INTERPRETERS = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-W", "error", "-c"]}


def tour() -> list[tuple[str, str]]:
    """The blocks of the tour: their language and their text."""
    text = README.read_text(encoding="utf-8")
    return BLOCK.findall(text[text.index("## A tour") : text.index("## More")])


def test_the_tour_works_as_written(tmp_path: Path) -> None:
    home, listen = tmp_path / "home", f"127.0.0.1:{plan.free_port()}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
    environment |= {
        "MODELYARD_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
    }
    output = ""
    try:
        for language, block in tour():
            # Another port, because 8080 may be taken here; and the project is installed already.
            text = block.replace("make install\n", "").replace("127.0.0.1:8080", listen)
            text = text.replace("modelyard up --detach", f"modelyard up --detach --listen {listen}")
            completed = subprocess.run(
                [*INTERPRETERS[language], text],
                check=False,
                env=environment,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=180,
            )
            output += completed.stdout
            assert completed.returncode == 0, f"{text}\n{completed.stdout}"
    finally:
        subprocess.run(["modelyard", "down"], env=environment, capture_output=True, check=False)
    run = Home(home / "suite").run  # outside of a home whose path is too long for sockets
    assert run.is_relative_to(home) or not run.exists()
    for promised in ("refused, as it should be", "APPROVED", "prod.oncology.tumour/1", '"model_version"'):
        assert promised in output, output
