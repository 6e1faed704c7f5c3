"""MLflow's proxied artifacts, for comparison: its server and its client, in an environment of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard_suite.plan import free_port

ENVIRONMENT = Path(".work/mlflow-artifacts")
PACKAGE = "mlflow>=3.17,<4"
WORKERS = 2
_START_SECONDS = 300
_CLIENT = """
import json, sys, time, mlflow
url, action, path, run = sys.argv[1:]
mlflow.set_tracking_uri(url)
client = mlflow.MlflowClient()
if action == "upload":
    run = client.create_run(client.create_experiment(f"bench-{time.time_ns()}")).info.run_id
    start = time.perf_counter()
    client.log_artifacts(run, path, "model")
else:
    start = time.perf_counter()
    client.download_artifacts(run, "model", path)
print("RESULT", json.dumps({"seconds": time.perf_counter() - start, "run": run}))
"""


class Mlflow:
    """A running server."""

    def __init__(self, python: Path, url: str) -> None:
        self._python = python
        self._url = url

    def upload(self, source: Path) -> tuple[float, str]:
        """Seconds to upload a folder, and the run it belongs to."""
        found = self._client("upload", source, "-")
        return float(found["seconds"]), str(found["run"])

    def download(self, run: str, target: Path) -> float:
        """Seconds to download a folder."""
        target.mkdir(parents=True)
        return float(self._client("download", target, run)["seconds"])

    def _client(self, action: str, path: Path, run: str) -> dict[str, object]:
        command = [str(self._python), "-c", _CLIENT, self._url, action, str(path), run]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
        line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
        result: dict[str, object] = json.loads(line.removeprefix("RESULT "))
        return result


def version(python: Path) -> str:
    """Version of MLflow that is compared with."""
    query = "import importlib.metadata as m; print(m.version('mlflow'))"
    return subprocess.run([python, "-c", query], check=True, capture_output=True, text=True).stdout.strip()


def install() -> Path | None:
    """The Python of MLflow's environment, made when it is not there; None when it cannot be installed."""
    python = ENVIRONMENT.absolute() / "bin" / "python"
    done = ENVIRONMENT / ".complete"
    if done.exists():
        return python
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv is None:
        return None
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
        [uv, "pip", "install", "--quiet", "--python", str(python), PACKAGE],
    ):
        if subprocess.run(command, check=False).returncode:
            return None
    done.touch()
    return python


@contextmanager
def running(python: Path, folder: Path) -> Iterator[Mlflow]:
    """Run `mlflow server --serve-artifacts` in a folder."""
    folder.mkdir(parents=True)
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        str(python.parent / "mlflow"),
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        url.rpartition(":")[2],
    ]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"]
    command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", str(WORKERS)]
    command += [
        "--uvicorn-opts",
        "--timeout-worker-healthcheck 120",
    ]  # on a busy machine its workers would be killed
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=_environment(), start_new_session=True
        )
    try:
        until = time.monotonic() + _START_SECONDS
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"MLflow does not start:\n{(folder / 'log').read_text()}")
            time.sleep(0.2)
        yield Mlflow(python, url)
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers, too; nothing of it is kept
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=1):
            return True
    except OSError:
        return False


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}
    return {
        **kept,
        "PATH": f"{ENVIRONMENT.absolute() / 'bin'}:{kept['PATH']}",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
