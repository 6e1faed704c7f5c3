"""Where to connect and how: targets, transport security, channel options, retries."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc

from modelyard._secure_channel import SecureChannel
from modelyard._tls import NO_FILES, TlsFiles
from modelyard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_TARGET = "127.0.0.1:8080"
DEFAULT_PORT = 8080
DEFAULT_MAX_MESSAGE_BYTES = 128 * 1024 * 1024
"""Above the 64 MiB that a deployment takes by default, so that the service says what its limit is."""

_API = "modelyard.api"
# Calls that do the same when made twice: reads, creations with a request id, and changes that set a value.
# Not here: CreateToken (a replay has no secret), SetAliases, RollbackAlias and Update… (conditional, or a rename that the
# second call would not find), Delete… of what then cannot be found, UndeleteResource.
_REPEATABLE = {
    f"{_API}.catalog.v1.CatalogService": (
        "CreateCatalog", "GetCatalog", "ListCatalogs", "CreateSchema", "GetSchema", "ListSchemas", "CreateModel",
        "GetModel", "ListModels", "CreateModelVersion", "FinalizeModelVersion", "FailModelVersion", "GetModelVersion",
        "ListModelVersions", "SetTags", "SetMetrics", "CopyModelVersion", "ListAliasHistory", "GetAliasAt", "RecordLineage",
        "DeleteLineage", "QueryLineage", "GetLimits",
    ),
    f"{_API}.artifact.v1.ArtifactService": (
        "BeginUpload", "GetUpload", "SignUploadUrls", "FinishBlob", "CommitUpload", "CancelUpload", "GetArtifact", "ListFiles",
        "SignDownloadUrls", "ListArtifacts", "GetStorageStatistics",
    ),
    f"{_API}.governance.v1.GovernanceService": (
        "ExchangeToken", "GetJwks", "GetCaller", "CreatePrincipal", "GetPrincipal", "ListPrincipals", "ListTokens",
        "RevokeToken", "CreateGrant", "ListGrants", "CheckPermission", "SetApprovalPolicy", "GetApprovalPolicy",
        "ReviewVersion", "GetApproval", "ListAuditEntries", "VerifyAudit",
    ),
    f"{_API}.inference.v1.InferenceService": ("CreateDeployment", "GetDeployment", "ListDeployments", "ListReplicas"),
}  # fmt: skip
_PREDICTIONS = {
    "inference.GRPCInferenceService": (
        "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer",
    ),
}  # fmt: skip


def _repeated(calls: Mapping[str, Sequence[str]], *, attempts: int) -> dict[str, object]:
    """Return a `MethodConfig` as gRPC's service config has it (proposal A6)."""
    return {
        "name": [{"service": service, "method": m} for service, methods in calls.items() for m in methods],
        "retryPolicy": {
            "maxAttempts": attempts,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        },
    }


SERVICE_CONFIG = {
    "methodConfig": [
        # 1.5 s together, in which a service that was killed may be back; Envoy repeats predictions on other replicas itself.
        _repeated(_REPEATABLE, attempts=5),
        _repeated(_PREDICTIONS, attempts=4),
    ]
}


@dataclass(frozen=True)
class Endpoint:
    """An address as gRPC takes it, and the files of TLS, or None for a way without."""

    address: str
    tls: TlsFiles | None = None


def parse_target(text: str, *, tls: TlsFiles = NO_FILES, insecure: bool = False) -> Endpoint:
    """Understand `host:port`, `http://…`, `https://…` and `unix:/path`.

    Args:
        text: The target.
        tls: Certificates and key; any of them makes `host:port` a connection with TLS.
        insecure: Allow a connection without TLS to another machine.

    Raises:
        ConfigurationError: the target is malformed, or would send the token in the clear.
    """
    if text.startswith("unix:"):
        return Endpoint(text)
    scheme, address = _split(text)
    if scheme == "https" or (not scheme and tls.given):
        return Endpoint(address, tls)
    if tls.given:
        raise ConfigurationError(
            f"target {text}: http:// uses no certificate; write https:// or drop {' and '.join(tls.given)}"
        )
    if not insecure and not _is_loopback(address):
        raise ConfigurationError(
            f"target {text}: a connection to another machine without TLS would show your token to the network; "
            "use https://…, or insecure=True (--insecure) on a network you trust"
        )
    return Endpoint(address)


def open_channel(endpoint: Endpoint, max_message_bytes: int) -> grpc.aio.Channel | SecureChannel:
    """A channel with retries, keepalive and message limits; call it on the event loop that will use it."""
    options = _options(max_message_bytes)
    if endpoint.tls is None:
        return grpc.aio.insecure_channel(endpoint.address, options=options)
    return SecureChannel(endpoint.address, endpoint.tls, options)


def _options(max_message_bytes: int) -> Sequence[tuple[str, Any]]:
    return (
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.primary_user_agent", f"modelyard-python/{version()}"),
    )


def version() -> str:
    """Version of this package."""
    try:
        return metadata.version("modelyard")
    except metadata.PackageNotFoundError:  # used from a source tree
        return "0"


def _split(text: str) -> tuple[str, str]:
    url = urlsplit(text if "://" in text else f"//{text}")
    try:
        port = url.port
    except ValueError:
        port = 0
    if url.scheme not in {"", "http", "https"} or not url.hostname or port == 0 or url.path not in {"", "/"}:
        raise ConfigurationError(
            f"target {text!r} is not understood; write host:port, https://host:port or unix:/path/to/socket"
        )
    if port is None:
        port = 443 if url.scheme == "https" else DEFAULT_PORT
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return url.scheme, f"{host}:{port}"


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
