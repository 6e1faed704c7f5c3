"""TLS of the listeners: certificates that Envoy reads again when they are replaced, and whose certificates clients need.

Envoy takes them from files that name them, one for each, and so watches their folders: a certificate that is renamed into its place, as
Kubernetes, cert-manager and `mv` do, serves the next connection. One that cannot be read leaves the one before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard_gateway.clusters import TYPE
from modelyard_gateway.settings import GatewaySettings

Json = dict[str, Any]

CERTIFICATE_FILE = "certificate.json"
CLIENT_CA_FILE = "client-ca.json"
_TLS = TYPE + "envoy.extensions.transport_sockets.tls.v3."


def transport_socket(settings: GatewaySettings) -> Json | None:
    """Return how listeners speak TLS; None if they do not."""
    files = secrets(settings).keys()
    if not files:
        return None
    common: Json = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_from(settings.envoy_directory / CERTIFICATE_FILE)],
        "alpn_protocols": ["h2", "http/1.1"],
    }
    if CLIENT_CA_FILE in files:
        common["validation_context_sds_secret_config"] = _from(settings.envoy_directory / CLIENT_CA_FILE)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TLS + "DownstreamTlsContext",
            "common_tls_context": common,
            "require_client_certificate": CLIENT_CA_FILE in files,
        },
    }


def secrets(settings: GatewaySettings) -> dict[str, Json]:
    """Return what each file holds: names of files, nothing secret itself."""
    if not (settings.tls_certificate and settings.tls_key):
        return {}
    pair = {"certificate_chain": _file(settings.tls_certificate), "private_key": _file(settings.tls_key)}
    found = {CERTIFICATE_FILE: _secret(CERTIFICATE_FILE, "tls_certificate", pair)}
    if settings.tls_client_ca:
        context = {"trusted_ca": _file(settings.tls_client_ca)}
        found[CLIENT_CA_FILE] = _secret(CLIENT_CA_FILE, "validation_context", context)
    return found


def embed(socket: Json, given: dict[str, Json]) -> None:
    """Put secrets into a transport socket in place of where they are found, so that they are validated with it."""
    common = socket["typed_config"]["common_tls_context"]
    del common["tls_certificate_sds_secret_configs"]
    common["tls_certificates"] = [given[CERTIFICATE_FILE]["tls_certificate"]]
    if common.pop("validation_context_sds_secret_config", None):
        common["validation_context"] = given[CLIENT_CA_FILE]["validation_context"]


def _secret(name: str, kind: str, content: Json) -> Json:
    return {"@type": _TLS + "Secret", "name": name, kind: content}


def _from(path: Path) -> Json:
    source = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
    return {"name": path.name, "sds_config": source}


def _file(path: Path) -> Json:
    return {"filename": str(path)}
