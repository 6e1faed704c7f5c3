"""Exits 0 when the process of this container is healthy: asks its gRPC health service, or Envoy's admin interface.

healthcheck.py                     what MODELYARD_LISTEN names
healthcheck.py unix:/path          another gRPC server
healthcheck.py --envoy /path       Envoy, by the socket of its admin interface
"""

from __future__ import annotations

import os
import socket
import sys

SECONDS = 2.0


def serves(address: str) -> bool:
    """Whether a gRPC server says that it is serving."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=SECONDS
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def envoy_is_ready(admin_socket: str) -> bool:
    """Whether Envoy has its configuration and takes requests."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.settimeout(SECONDS)
        try:
            admin.connect(admin_socket)
            admin.sendall(b"GET /ready HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
            return admin.recv(64).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False


def main(arguments: list[str]) -> int:
    """Check what the arguments say."""
    if arguments[:1] == ["--envoy"]:
        return 0 if envoy_is_ready(arguments[1]) else 1
    address = arguments[0] if arguments else os.environ.get("MODELYARD_LISTEN", "")
    return 0 if address and serves(address) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
