"""A service whose Prometheus endpoint is switched on tells what it answered, and a process stops cleanly on SIGTERM.

What the dashboard asks for is compared with what is really told.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from modelyard.api.governance.v1.governance_service_pb2 import GetJwksRequest
from modelyard.api.governance.v1.governance_service_pb2_grpc import GovernanceServiceStub
from modelyard_kit.channels import CLIENT_OPTIONS
from modelyard_suite import plan, secrets
from tests.framework import folders
from tests.framework.grafana import asked_for, told


@contextmanager
def governance(database: str, folder: Path, metrics: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the governance service as a process."""
    secrets.ensure_tokens(folder)
    settings = {
        "LISTEN": f"unix:{folder}/s",
        "DATABASE": database,
        "TOKEN_FILE": f"{folder}/governance.token",
        "SIGNING_KEY_FILE": f"{folder}/key.pem",
        "BOOTSTRAP_DIRECTORY": str(folder),
        "METRICS_LISTEN": metrics,
    }
    environment = {**os.environ, **{f"MODELYARD_{name}": value for name, value in settings.items()}}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard_governance"], env=environment, stderr=log
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (folder / "log").read_text()


def test_prometheus_reads_calls_by_method_and_status(fresh_database: Callable[[str], str]) -> None:
    metrics = f"127.0.0.1:{plan.free_port()}"
    with tempfile.TemporaryDirectory(prefix="my-", dir=folders.SHORT) as name:
        folder = Path(name)
        with (
            governance(fresh_database("modelyard_governance"), folder, metrics),
            grpc.insecure_channel(f"unix:{folder}/s", options=CLIENT_OPTIONS) as channel,
        ):
            GovernanceServiceStub(channel).GetJwks(GetJwksRequest(), wait_for_ready=True, timeout=60)
            deadline = time.monotonic() + 30
            text = ""
            while "GetJwks" not in text and time.monotonic() < deadline:  # counted just after it was answered
                with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
                    text = answer.read().decode()
    line = next(
        line for line in text.splitlines() if line.startswith("rpc_server_duration") and "GetJwks" in line
    )
    assert 'status_code="OK"' in line
    missing = {
        name: labels - told(text).get(name, set())
        for name, labels in asked_for().items()
        if name.startswith("rpc_server_")
    }
    assert missing
    assert not any(missing.values()), missing


_COUNTED = """
import sys
from types import SimpleNamespace
from modelyard_kit import telemetry
telemetry.start(SimpleNamespace(otlp_endpoint="", metrics_listen=sys.argv[1]), "inference")
from modelyard_inference.shadows import Shadows
from prometheus_client import REGISTRY, generate_latest
from modelyard_inference.log_shipping import LogShipping
Shadows(None, None).note("prod.ml.iris", {"compared": 3})
LogShipping(None, None, SimpleNamespace(name="otlp"), patience=0)._count("shipped", "access", 3, replica="r")
print(generate_latest(REGISTRY).decode())
"""


def test_shadows_and_logs_are_told_as_the_dashboard_asks() -> None:
    metrics = f"127.0.0.1:{plan.free_port()}"
    done = subprocess.run(
        [sys.executable, "-c", _COUNTED, metrics], capture_output=True, text=True, check=True, timeout=60
    )
    names = {
        "modelyard_shadow_copies_total": {"deployment", "outcome"},
        "modelyard_prediction_log_lines_total": {"destination", "log", "outcome"},
    }
    asked, found = asked_for(), told(done.stdout)
    for name, labels in names.items():
        assert asked[name] == labels
        assert found[name] >= labels
