"""Replicas as the launcher runs them: real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from modelyard.api.inference.v1.log_pb2 import LoggingPolicy
from modelyard.api.inference.v1.replica_service_pb2 import SetLoggingRequest
from modelyard.api.inference.v1.replica_service_pb2_grpc import ReplicaServiceStub
from modelyard.api.oip.v2 import grpc_inference_pb2 as pb
from modelyard.api.oip.v2.grpc_inference_pb2_grpc import GRPCInferenceServiceStub
from modelyard_inference import log_files
from modelyard_inference.replica.config import ReplicaConfig, read_status
from tests.conformance import odd_runtime
from tests.conformance.replicas import DEPLOYMENT, iris_config, iris_model, iris_rows, write_iris
from tests.framework.waiting import wait_until

ROOT = Path(__file__).parents[2]
REPLICA = [sys.executable, "-m", "modelyard_inference.replica"]
# The same program with the runtime of the tests among those it knows.
ODD_REPLICA = [
    sys.executable,
    "-c",
    f"""
import sys
from modelyard_inference import runtimes
from modelyard_inference.replica.__main__ import run
runtimes.RUNTIMES[{odd_runtime.NAME!r}] = {odd_runtime.MODULE!r}
sys.exit(run())
""",
]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="my") as directory:
        yield Path(directory)


@contextlib.contextmanager
def running(command: list[str], config: ReplicaConfig, path: Path) -> Iterator[subprocess.Popen[str]]:
    config.dump(path)
    process = subprocess.Popen(
        [*command, "--config", str(path)], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ready(path: Path) -> bool:
    state = read_status(path).get("state")
    assert state != "failed", read_status(path)
    return bool(state == "ready")


def iris_request() -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=DEPLOYMENT, raw_input_contents=[iris_rows().tobytes()])
    request.inputs.add(name="x", datatype="FP32", shape=[150, 4])
    return request


def test_serves_and_stops(folder: Path) -> None:
    config, path = iris_config(write_iris(folder / "model"), folder / "s"), folder / "replica.json"
    with running(REPLICA, config, path) as process:
        wait_until(lambda: ready(path))
        assert read_status(path)["process_id"] == process.pid
        with grpc.insecure_channel(config.listen) as channel:
            response = GRPCInferenceServiceStub(channel).ModelInfer(iris_request(), timeout=30)
        labels = np.frombuffer(response.raw_output_contents[0], np.int64)
        assert labels.tolist() == iris_model().predict(iris_rows()).tolist()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    assert not config.socket.exists()
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events == ["replica_ready", "replica_draining", "replica_stopped"]


def test_a_request_in_flight_is_finished(folder: Path) -> None:
    config = iris_config(folder, folder / "s", runtime=odd_runtime.NAME, signature=odd_runtime.SIGNATURE)
    path = folder / "replica.json"
    request = pb.ModelInferRequest(
        model_name=DEPLOYMENT, raw_input_contents=[np.ones(2, np.float32).tobytes()]
    )
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    request.parameters["method"].string_param = "wait"
    with running(ODD_REPLICA, config, path) as process, grpc.insecure_channel(config.listen) as channel:
        wait_until(lambda: ready(path))
        stub, health = GRPCInferenceServiceStub(channel), health_pb2_grpc.HealthStub(channel)
        in_flight = stub.ModelInfer.future(request, timeout=60)
        wait_until((folder / "started").exists)
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: read_status(path)["state"] == "draining")
        not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
        wait_until(lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=30).status == not_serving)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=30)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert process.poll() is None
        (folder / "release").touch()
        assert in_flight.result(timeout=60).outputs[0].shape == [2]
        assert process.wait(timeout=60) == 0


def test_what_a_model_prints_is_logged_with_the_prediction(folder: Path) -> None:
    path, log = folder / "replica.json", folder / "log"
    iris_config(
        folder, folder / "s", runtime=odd_runtime.NAME, signature=odd_runtime.SIGNATURE, log_file=str(log)
    ).dump(path)
    config = ReplicaConfig.load(path)
    with log_files.begin(log) as output:
        process = subprocess.Popen(
            [*ODD_REPLICA, "--config", str(path)],
            cwd=ROOT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until(lambda: ready(path))
        with grpc.insecure_channel(config.listen) as channel:
            stub = GRPCInferenceServiceStub(channel)
            for number in (1, 2):
                request = pb.ModelInferRequest(
                    model_name=DEPLOYMENT, raw_input_contents=[np.full(1, number, np.float32).tobytes()]
                )
                request.inputs.add(name="x", datatype="FP32", shape=[1])
                request.parameters["method"].string_param = "talk"
                stub.ModelInfer(request, timeout=30, metadata=[("x-request-id", f"call-{number}")])
            policy = LoggingPolicy(access_log=True, predict_log_percent=100, include_payload=True)
            ReplicaServiceStub(channel).SetLogging(SetLoggingRequest(policy=policy), timeout=30)
            stub.ModelInfer(request, timeout=30, metadata=[("x-request-id", "written-down")])
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
    for name, event in (("access", "answered"), ("predict", "prediction")):
        (written,) = log_files.tail(folder / name, log_files.Wanted(tail=99)).lines
        assert (written.message, written.request_ids, written.attributes["method"]) == (
            event, ("written-down",), "talk",
        )  # fmt: skip
    assert json.loads(written.attributes["inputs"])["x"]["values"] == [2.0]
    lines = log_files.tail(log, log_files.Wanted(tail=99)).lines
    assert [(line.logger, line.message) for line in lines if not line.request_ids] == [
        ("launcher", "replica_starting"),
        ("replica", "replica_ready"),
        ("replica", "replica_draining"),
        ("replica", "replica_stopped"),
    ]
    spoken = [
        (line.logger, line.level.name, line.message, line.request_ids) for line in lines if line.request_ids
    ]
    assert spoken == [
        entry
        for number, call in ((1, "call-1"), (2, "call-2"), (2, "written-down"))
        for entry in (
            ("stdout", "INFO", f"row {number}", (call,)),
            ("odd", "WARNING", f"logged {number}", (call,)),
            ("stderr", "WARNING", "complaint", (call,)),
        )
    ]


def test_a_stuck_model_does_not_keep_the_process(folder: Path) -> None:
    config = iris_config(
        folder, folder / "s", runtime=odd_runtime.NAME, signature=odd_runtime.SIGNATURE, drain_seconds=0.2
    )
    path = folder / "replica.json"
    request = pb.ModelInferRequest(
        model_name=DEPLOYMENT, raw_input_contents=[np.ones(2, np.float32).tobytes()]
    )
    request.inputs.add(name="x", datatype="FP32", shape=[2])
    request.parameters["method"].string_param = "wait"
    with running(ODD_REPLICA, config, path) as process, grpc.insecure_channel(config.listen) as channel:
        wait_until(lambda: ready(path))
        in_flight = GRPCInferenceServiceStub(channel).ModelInfer.future(request, timeout=60)
        wait_until((folder / "started").exists)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "drain_timed_out" in log
        assert in_flight.exception(timeout=60) is not None


def greedy(mebibytes: float) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(
        model_name=DEPLOYMENT, raw_input_contents=[np.array([mebibytes], np.float32).tobytes()]
    )
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    request.parameters["method"].string_param = "greedy"
    return request


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not bound the memory of a process")
def test_a_replica_out_of_memory_fails_the_request_or_ends_and_says_why(folder: Path) -> None:
    """One input that needs too much is refused and harmless; a leak ends the replica; nobody waits."""
    config = iris_config(
        folder, folder / "s", runtime=odd_runtime.NAME, signature=odd_runtime.SIGNATURE, memory_bytes=2**30
    )
    path = folder / "replica.json"
    bounded = ["/bin/sh", "-c", f'ulimit -d {2**20} && exec "$0" "$@"', *ODD_REPLICA]
    with running(bounded, config, path) as process, grpc.insecure_channel(config.listen) as channel:
        wait_until(lambda: ready(path))
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="the model ran out of memory on this input") as caught:
            stub.ModelInfer(greedy(4_000), timeout=60)
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert stub.ModelInfer(greedy(1), timeout=60).outputs[0].shape == [1]
        leaked = (
            stub.ModelInfer.future(greedy(-8), timeout=60).exception() for _ in range(2**30 // (8 * 2**20))
        )
        refused = next(error for error in leaked if error is not None)
        assert refused.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
        assert process.wait(timeout=60) == 1
    told = f"out of memory for its smallest input: it needs more than the {2**30} bytes it may use"
    assert (read_status(path)["state"], read_status(path)["message"]) == ("failed", told)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runtime": "tensorflow"}, "runtime 'tensorflow' is none of lightgbm, mlflow, onnx, "),
        ({"runtime": "onnx"}, "the artifact has no model.onnx"),
    ],
)
def test_a_failed_load_is_told(folder: Path, changes: dict[str, Any], message: str) -> None:
    config, path = iris_config(write_iris(folder / "model"), folder / "s", **changes), folder / "replica.json"
    with running(REPLICA, config, path) as process:
        _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert message in read_status(path)["message"]
    assert read_status(path)["state"] == "failed"
    (line,) = (json.loads(line) for line in log.splitlines())
    assert (line["event"], line["level"]) == ("replica_failed", "error")
    assert message in line["problem"]
    assert line["deployment"] == DEPLOYMENT


def test_a_bad_configuration_is_told(folder: Path) -> None:
    path = folder / "replica.json"
    path.write_text('{"version": 0}')
    run = subprocess.run(
        [*REPLICA, "--config", str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "deployment: is missing" in json.loads(run.stderr)["problem"]
    assert read_status(path)["state"] == "failed"


def test_a_folder_nobody_may_write_is_told(folder: Path) -> None:
    (folder / "s").write_text("not a folder")
    config, path = iris_config(write_iris(folder / "model"), folder / "s"), folder / "replica.json"
    with running(REPLICA, config, path) as process:
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert read_status(path)["state"] == "failed"


def test_predictions_go_on_without_the_parent(folder: Path) -> None:
    config, path = iris_config(write_iris(folder / "model"), folder / "s"), folder / "replica.json"
    config.dump(path)
    # A parent that starts a replica with pipes and dies.
    program = (
        "import subprocess, sys, os, time\n"
        "child = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, *REPLICA, "--config", str(path)], cwd=ROOT)
    replica = None
    try:
        wait_until(lambda: ready(path))
        replica = psutil.Process(read_status(path)["process_id"])
        parent.kill()
        parent.wait(timeout=30)
        replica.send_signal(signal.SIGHUP)
        with grpc.insecure_channel(config.listen) as channel:
            response = GRPCInferenceServiceStub(channel).ModelInfer(iris_request(), timeout=30)
        assert len(response.raw_output_contents[0]) == 150 * 8
        # Its log goes nowhere now; it still stops in order.
        replica.terminate()
        wait_until(lambda: not _alive(replica))
        assert read_status(path)["state"] == "draining"
    finally:
        parent.kill()
        if replica is not None and _alive(replica):
            os.kill(replica.pid, signal.SIGKILL)


def _alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
