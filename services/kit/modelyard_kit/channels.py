"""Channel and server options that every gRPC connection of Modelyard uses."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import grpc.aio

MAX_MESSAGE_BYTES = 64 * 2**20

SERVER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # What a stream may be ahead of its reader. Left to guess it from bandwidth and delay, gRPC took 200 MiB while a disk was slow.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 4 * 2**20),
    ("grpc.so_reuseport", 0),  # one process, one port: sharing a port pins connections
    # Envoy and clients ping more often than gRPC's default allows, which would end with "too_many_pings".
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
]

_RETRY = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                # Longer together than a channel waits before it connects again: a peer that was restarted is found.
                "maxAttempts": 5,
                "initialBackoff": "0.2s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

CLIENT_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 1),
    ("grpc.service_config", json.dumps(_RETRY)),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
]


def open_channel(address: str, ca_certificate: Path | None = None) -> grpc.aio.Channel:
    """Return a channel to `unix:/path` or `host:port`, with TLS if a CA certificate is given."""
    if ca_certificate and not address.startswith("unix:"):
        credentials = grpc.ssl_channel_credentials(ca_certificate.read_bytes())
        return grpc.aio.secure_channel(address, credentials, options=CLIENT_OPTIONS)
    return grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS)
