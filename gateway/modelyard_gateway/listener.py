"""The public listener: the chain of filters, the check of tokens, local replies, access log, traces."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from modelyard_gateway import control_plane_rest, refusals, rest, tls
from modelyard_gateway.clusters import TELEMETRY, TYPE, envoy_address
from modelyard_gateway.descriptors import OIP_SERVICES, REST_SERVICE
from modelyard_gateway.refusals import METADATA, Refusal
from modelyard_gateway.rights import RBAC_TYPE
from modelyard_gateway.route_parts import (
    BANDWIDTH_LIMIT,
    BUFFER,
    CORS,
    FIELD_EXTRACTION,
    GRPC_TRANSCODER,
    HEADER,
    JWT,
    LUA,
    NAME,
    NAME_FIELDS,
    PRIVATE_NAME,
    RATE_LIMIT,
    RBAC,
    SET_METADATA,
)
from modelyard_gateway.routes import CONTROL_PLANE, HEALTH_PREFIX, SERVER_PATHS
from modelyard_gateway.settings import GatewaySettings
from modelyard_gateway.table import SigningKeys
from modelyard_kit.auth import ALGORITHM, AUDIENCE

Json = dict[str, Any]

_HTTP = "envoy.extensions.filters.http"
# Bytes of a gRPC frame and of the message around a body.
_FRAME_BYTES = 64 * 2**10
_WITHOUT_TOKEN = ("ExchangeToken", "GetJwks")


def listeners(
    settings: GatewaySettings, keys: SigningKeys, routes_file: Path, rights_file: Path
) -> list[Json]:
    """Return the public listener and the private one, if there is one; both take routes and rights from these files."""
    files = routes_file, rights_file
    public = _listener(NAME, settings.listen, settings, _connection_manager(settings, keys, *files))
    if not settings.private_listen:
        return [public]
    manager = _connection_manager(settings, keys, *files)
    note = {"metadata_namespace": PRIVATE_NAME, "value": {"private": True}}
    noting = _filter(SET_METADATA, f"{_HTTP}.set_metadata.v3.Config", metadata=[note])
    manager |= {"stat_prefix": PRIVATE_NAME, "http_filters": [noting, *manager["http_filters"]]}
    return [public, _listener(PRIVATE_NAME, settings.private_listen, settings, manager)]


def _listener(name: str, address: str, settings: GatewaySettings, manager: Json) -> Json:
    filter_ = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    chain: Json = {"filters": [filter_]}
    if socket := tls.transport_socket(settings):
        chain["transport_socket"] = socket
    listener: Json = {
        "@type": TYPE + "envoy.config.listener.v3.Listener",
        "name": name,
        "address": envoy_address(address),
        "filter_chains": [chain],
        # The body of a request is held until it is answered, so that it can be sent to another replica.
        "per_connection_buffer_limit_bytes": settings.max_request_bytes + _FRAME_BYTES,
    }
    if not address.startswith("unix:"):
        # A port that another program holds must be an error, and few long connections must spread over all workers.
        listener |= {"enable_reuse_port": False, "connection_balance_config": {"exact_balance": {}}}
    return listener


def source(file: Path) -> Json:
    """Return a file as the place where Envoy finds resources, and looks again whenever it is replaced."""
    return {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"}


def _connection_manager(
    settings: GatewaySettings, keys: SigningKeys, routes_file: Path, rights_file: Path
) -> Json:
    manager: Json = {
        "@type": TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": NAME,
        "codec_type": "AUTO",
        "rds": {
            "route_config_name": NAME,
            "config_source": {**source(routes_file), "initial_fetch_timeout": "0s"},
        },
        "http_filters": _filters(settings, keys, rights_file),
        "local_reply_config": {"mappers": list(_local_replies(settings.max_request_bytes))},
        "access_log": [_access_log(settings.access_log_file)],
        "use_remote_address": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        # Making ids costs a third of Envoy's time; a caller's own id is passed on, services make the missing ones.
        # Envoy traces only what has an id, so with traces it makes them.
        "generate_request_id": bool(settings.otlp_endpoint),
        "preserve_external_request_id": True,
        "request_id_extension": {
            "typed_config": {
                "@type": TYPE + "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                # An id is passed on as it is, and any text is one.
                "pack_trace_reason": False,
                "use_request_id_for_trace_sampling": False,
            }
        },
        "request_headers_timeout": "10s",
        "stream_idle_timeout": "300s",
        "common_http_protocol_options": {"idle_timeout": "3600s"},
        "server_header_transformation": "PASS_THROUGH",
    }
    if settings.otlp_endpoint:
        manager["tracing"] = _tracing()
    return manager


def _tracing() -> Json:
    return {
        "spawn_upstream_span": False,
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": TYPE + "envoy.config.trace.v3.OpenTelemetryConfig",
                "grpc_service": {"envoy_grpc": {"cluster_name": TELEMETRY}, "timeout": "1s"},
                "service_name": "modelyard-gateway",
            },
        },
    }


def _filters(settings: GatewaySettings, keys: SigningKeys, rights_file: Path) -> list[Json]:
    """Filters in the order in which a request meets them; that order is what makes them right.

    1. Browsers ask whether their page may call, without a token. 2. gRPC-Web is unwrapped. 3. The token is checked. 4-6. Only on
    routes that do not know the deployment yet: the REST form becomes gRPC, the name is read from the message, the route is
    chosen again. 7. RBAC decides by the name that the final route was chosen by. 8-9. Rate and bandwidth of the deployment, which those who may not predict
    use nothing of. 10. The body is counted, after RBAC so that nothing is held for callers who may not. 11. The router.
    """
    limit = settings.max_request_bytes
    return [
        _filter(CORS, f"{_HTTP}.cors.v3.Cors"),
        _filter("envoy.filters.http.grpc_web", f"{_HTTP}.grpc_web.v3.GrpcWeb"),
        _filter(JWT, f"{_HTTP}.jwt_authn.v3.JwtAuthentication", **_jwt(keys)),
        _filter(GRPC_TRANSCODER, f"{_HTTP}.grpc_json_transcoder.v3.GrpcJsonTranscoder", **_transcoder(limit)),
        _filter(
            FIELD_EXTRACTION, f"{_HTTP}.grpc_field_extraction.v3.GrpcFieldExtractionConfig", **_extraction()
        ),
        _filter(LUA, f"{_HTTP}.lua.v3.Lua", default_source_code={"inline_string": _lua()}),
        _rbac(rights_file),
        _filter(RATE_LIMIT, f"{_HTTP}.local_ratelimit.v3.LocalRateLimit", stat_prefix="rate"),
        _filter(BANDWIDTH_LIMIT, f"{_HTTP}.bandwidth_limit.v3.BandwidthLimit", stat_prefix="bandwidth"),
        _filter(BUFFER, f"{_HTTP}.buffer.v3.Buffer", max_request_bytes=limit),
        _filter("envoy.filters.http.router", f"{_HTTP}.router.v3.Router", suppress_envoy_headers=True),
    ]


def _filter(name: str, message: str, **config: Any) -> Json:
    return {"name": name, "typed_config": {"@type": TYPE + message, **config}}


def _rbac(rights_file: Path) -> Json:
    """The filter without which nothing is let in: the listener waits for its file as long as it takes."""
    found = {**source(rights_file), "initial_fetch_timeout": "0s"}
    return {"name": RBAC, "config_discovery": {"config_source": found, "type_urls": [RBAC_TYPE]}}


def _lua() -> str:
    return resources.files("modelyard_gateway").joinpath("resolve.lua").read_text(encoding="utf-8")


def _jwt(keys: SigningKeys) -> Json:
    jwks = [
        {"kty": "EC", "crv": "P-256", "alg": ALGORITHM, "use": "sig", "kid": key.kid, "x": key.x, "y": key.y}
        for key in sorted(keys.keys, key=lambda key: key.kid)
    ]
    open_paths = [f"/{CONTROL_PLANE['governance']}/{method}" for method in _WITHOUT_TOKEN]
    open_paths += [control_plane_rest.path("governance", method) for method in _WITHOUT_TOKEN]
    open_paths += [*SERVER_PATHS, *rest.SERVER_PATHS]
    rules: list[Json] = [{"match": {"path": path}} for path in open_paths]
    rules.append({"match": {"prefix": HEALTH_PREFIX}})
    rules.append({"match": {"prefix": "/"}, "requires": {"provider_name": NAME}})
    provider = {
        "issuer": keys.issuer,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": json.dumps({"keys": jwks})},
        # Services check tokens once more by themselves; routes to replicas remove them.
        "forward": True,
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "payload_in_metadata": "jwt_payload",
        "require_expiration": True,
        "clock_skew_seconds": 5,
        "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    return {"providers": {NAME: provider}, "rules": rules}


def _transcoder(limit: int) -> Json:
    return {
        "proto_descriptor_bin": base64.b64encode(rest.transcoded_set()).decode(),
        "services": [REST_SERVICE, *CONTROL_PLANE.values()],
        "print_options": {"preserve_proto_field_names": True, "stream_newline_delimited": True},
        "convert_grpc_status": True,
        "max_request_body_size": limit + _FRAME_BYTES,
        "max_response_body_size": limit + _FRAME_BYTES,
        "request_validation_options": {"reject_unknown_method": True},
    }


def _extraction() -> Json:
    """What resolve.lua reads of a message: the names of deployment and version."""
    methods = {
        f"{service}.{method}": prefix for service in OIP_SERVICES for method, prefix in NAME_FIELDS.items()
    }
    methods |= {f"{REST_SERVICE}.{method}": "model_" for method in rest.RULES}
    return {
        "descriptor_set": {"inline_bytes": base64.b64encode(rest.descriptor_set()).decode()},
        "extractions_by_method": {
            method: {"request_field_extractions": {f"{prefix}name": {}, f"{prefix}version": {}}}
            for method, prefix in methods.items()
        },
    }


def _local_replies(limit: int) -> Iterable[Json]:
    """What Envoy's own refusals look like, most specific first; each for gRPC and for the REST form."""
    yield from _reply(_details_contain("Jwt_is_missing"), 401, refusals.TOKEN_MISSING)
    yield from _reply(_details_contain("Jwt_is_expired"), 401, refusals.TOKEN_EXPIRED)
    yield from _reply(_details_contain("jwt_authn_access_denied"), 401, refusals.TOKEN_INVALID)
    yield from _reply(_details_contain("rbac_access_denied"), 403, "denied", refusals.PERMISSION_DENIED)
    yield from _reply(
        _details_contain("local_rate_limited"), 429, "rate_limited", refusals.RESOURCE_EXHAUSTED
    )
    yield from _reply(_details_contain("{overflow}"), 429, "overloaded", refusals.RESOURCE_EXHAUSTED)
    yield from _reply(_too_large_unresolved(), 413, refusals.too_large(limit))
    yield from _reply(_status(413), 413, "too_large", refusals.RESOURCE_EXHAUSTED)
    yield from _reply(_status(503), 503, "unavailable", refusals.UNAVAILABLE)
    yield from _reply(_status(408), 504, refusals.DEADLINE)
    yield from _reply(_status(504), 504, refusals.DEADLINE)
    failed = {"and_filter": {"filters": [_cel("response.code >= 400"), _is_rest()]}}
    yield {"filter": failed, "body_format_override": _json_error("%LOCAL_REPLY_BODY%")}


def _reply(condition: Json, http_status: int, refusal: Refusal | str, code: int = 0) -> Iterable[Json]:
    """One refusal in both forms: fixed, or taken from the metadata of the route under the name `refusal`."""
    if isinstance(refusal, Refusal):
        code, message, details = refusal.code, refusal.message, refusal.details
    else:
        message = f"%METADATA(ROUTE:{METADATA}:{refusal}_message)%"
        details = f"%METADATA(ROUTE:{METADATA}:{refusal}_details)%"
    yield {
        "filter": {"and_filter": {"filters": [condition, _is_rest()]}},
        "status_code": http_status,
        "body_format_override": _json_error(message),
    }
    yield {
        "filter": condition,
        "headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in (("grpc-status", str(code)), ("grpc-status-details-bin", details))
        ],
        "body_format_override": {"text_format_source": {"inline_string": message}},
    }


def _json_error(message: str) -> Json:
    return {"json_format": {"error": message}, "content_type": "application/json"}


def _status(code: int) -> Json:
    comparison = {"op": "EQ", "value": {"default_value": code, "runtime_key": "modelyard.unused"}}
    return {"status_code_filter": {"comparison": comparison}}


def _details_contain(text: str) -> Json:
    return _cel(f"response.code_details.contains('{text}')")


def _too_large_unresolved() -> Json:
    """Bodies over the limit of the listener, on routes that do not know the deployment: there is one for each, so they carry no text."""
    return _cel(f"response.code == 413 && 'unresolved' in xds.route_metadata.filter_metadata['{LUA}']")


def _is_rest() -> Json:
    """Requests that did not come as gRPC; the transcoder leaves the path they came with."""
    return _cel(
        "'x-envoy-original-path' in request.headers || !('content-type' in request.headers)"
        " || !request.headers['content-type'].startsWith('application/grpc')"
    )


def _cel(expression: str) -> Json:
    return {
        "extension_filter": {
            "name": "envoy.access_loggers.extension_filters.cel",
            "typed_config": {
                "@type": TYPE + "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
                "expression": expression,
            },
        }
    }


def _access_log(path: str) -> Json:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": TYPE + "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {
                "omit_empty_values": True,
                "json_format": {
                    "time": "%START_TIME%",
                    "sub": f"%DYNAMIC_METADATA({JWT}:jwt_payload:sub)%",
                    "deployment": f"%REQ({HEADER})%",
                    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
                    "status": "%RESPONSE_CODE%",
                    "grpc_status": "%GRPC_STATUS(SNAKE_STRING)%",
                    "flags": "%RESPONSE_FLAGS%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "duration_ms": "%DURATION%",
                    "bytes_received": "%BYTES_RECEIVED%",
                    "bytes_sent": "%BYTES_SENT%",
                    "cluster": "%UPSTREAM_CLUSTER%",
                    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
                },
            },
        },
    }
