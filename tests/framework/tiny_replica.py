"""A replica without a model: checks signatures as a real one, answers health checks on its socket, or misbehaves as its `runtime` says.

ready: serves; ends on SIGTERM          broken: reports that it cannot load, and exits
stuck: listens, never gets ready        stubborn: as ready, but ignores SIGTERM
waiting: serves, and says that it does not for now
"""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from modelyard_inference.evidence import Evidence
from modelyard_inference.replica.config import WAITING, write_status
from modelyard_inference.replica.verification import verify
from modelyard_inference.runtimes import LoadError


def main(path: Path) -> int:
    """Run until SIGTERM."""
    config = json.loads(path.read_text())
    runtime = config["runtime"]
    sys.stdout.write(f"tiny replica of {config['model']}/{config['version']}\n")
    if runtime == "broken":
        write_status(path, "failed", "the model cannot be loaded: it is broken")
        return 1
    try:
        evidence = Evidence.from_json(config["evidence"])
        verdict = verify(Path(config["model_directory"]), evidence, required=config["require_signature"])
    except LoadError as error:
        write_status(path, "failed", str(error))
        return 1
    write_status(path, "loading", verdict=verdict)
    if runtime == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        # Kept until somebody waits for it. A handler that sets an Event hangs for ever when it comes while `wait` takes the same lock.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    server = grpc.server(ThreadPoolExecutor(2))
    state = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    server.add_insecure_port(config["listen"])
    answer = (
        health_pb2.HealthCheckResponse.NOT_SERVING
        if runtime == "stuck"
        else health_pb2.HealthCheckResponse.SERVING
    )
    state.set("", answer)
    server.start()
    states = {"stuck": ("loading",), "waiting": (WAITING, "the other server is away")}
    write_status(path, *states.get(runtime, ("ready",)), verdict=verdict)
    while runtime == "stubborn":
        signal.pause()
    signal.sigwait({signal.SIGTERM})
    write_status(path, "draining")
    server.stop(1).wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[sys.argv.index("--config") + 1])))
