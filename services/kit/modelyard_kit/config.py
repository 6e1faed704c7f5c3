"""Configuration: environment variables `MODELYARD_*` over a TOML file over defaults; every problem is reported at once."""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from modelyard_kit import PREFIX, faults

FILE_VARIABLE = "MODELYARD_CONFIG_FILE"
# sun_path holds 108 bytes on Linux and 104 on macOS, with the terminating zero.
SOCKET_PATH_BYTES = 103


class Settings(BaseSettings):
    """What every service is told. An address is `unix:/path` or `host:port`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    listen: str = Field(description="Address to listen on.")
    database: str = Field(description="postgresql://… of this service's own database.")
    token_file: Path = Field(description="File with the API token of this service, mode 0600.")
    issuer: str = Field("modelyard", description="Value of the `iss` claim of accepted tokens.")
    catalog_address: str = Field("", description="Address of the catalog service.")
    artifact_address: str = Field("", description="Address of the artifact service.")
    governance_address: str = Field("", description="Address of the governance service.")
    inference_address: str = Field("", description="Address of the inference service.")
    peer_ca: Path | None = Field(
        None, description="CA certificate of the other services, if they listen with TLS."
    )
    tls_certificate: Path | None = Field(None, description="Certificate (PEM) to listen with TLS.")
    tls_key: Path | None = Field(None, description="Key of the certificate (PEM).")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )
    log_format: Literal["json", "console"] = Field("json", description="Form of the log.")
    otlp_endpoint: str = Field("", description="OTLP/gRPC collector, http://host:port; empty: no export.")
    metrics_listen: str = Field("", description="host:port for Prometheus to scrape; empty: none.")
    permission_bound_seconds: float = Field(
        30.0, gt=0, description="Seconds without governance after which nothing is permitted."
    )
    drain_seconds: float = Field(10.0, ge=0, description="Longest time to finish calls when stopping.")
    failpoints: str = Field("", description="Faults to inject, for tests; see modelyard_kit.faults.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values given in code, then the environment, then the file."""
        file = os.environ.get(FILE_VARIABLE)
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, Path(file) if file else None),
        )

    @field_validator(
        "listen", "catalog_address", "artifact_address", "governance_address", "inference_address"
    )
    @classmethod
    def _address(cls, value: str) -> str:
        return check_address(value) if value else value

    @field_validator("metrics_listen")
    @classmethod
    def _scraped(cls, value: str) -> str:
        if value.startswith("unix:"):
            raise ValueError(f"{value!r}: Prometheus reaches no socket: write host:port")
        return check_address(value) if value else value

    @field_validator("failpoints")
    @classmethod
    def _failpoints(cls, value: str) -> str:
        faults.configure(value)
        return value

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key belong together: set both or neither")
        if not self.tls_certificate and not is_local(self.listen):
            raise ValueError(
                f"listen={self.listen} can be reached from outside: set tls_certificate and tls_key, or listen on loopback"
            )
        return self


def check_address(value: str) -> str:
    """Return `value` if it is `unix:/path` or `host:port`.

    Raises:
        ValueError: it is not, or the path is too long for a socket.
    """
    if value.startswith("unix:"):
        path = value.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError(f"{value!r}: the path after unix: must be absolute")
        if len(path.encode()) > SOCKET_PATH_BYTES:
            raise ValueError(
                f"{path!r} is too long for a socket ({SOCKET_PATH_BYTES} bytes at most): choose a shorter folder"
            )
        return value
    host, colon, port = value.rpartition(":")
    if not (colon and host and port.isdigit() and int(port) < 2**16):
        raise ValueError(f"{value!r}: write unix:/path or host:port")
    return value


def is_local(address: str) -> bool:
    """Return whether only this machine can reach the address."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


S = TypeVar("S", bound=BaseSettings)


def load(settings: type[S], **given: Any) -> S:
    """Read the settings, or print every problem and exit with status 2."""
    try:
        return settings(**given)
    except ValidationError as error:
        lines = [f"{settings.__name__}: {error.error_count()} problem(s) in the configuration:"]
        for problem in error.errors():
            name = "_".join(str(part) for part in problem["loc"])
            lines.append(f"  {PREFIX}{name.upper()}: {problem['msg']}" if name else f"  {problem['msg']}")
        sys.exit("\n".join(lines))
