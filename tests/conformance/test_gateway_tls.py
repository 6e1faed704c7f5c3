"""TLS at a real Envoy: certificates that are replaced while it serves, and clients that have to show one."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.api.catalog.v1.catalog_service_pb2 import GetCatalogRequest
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import (
    CatalogServiceStub,
    add_CatalogServiceServicer_to_server,
)
from modelyard_gateway.apply import ApplyFailedError
from tests.conformance.gateway_control_plane import Catalog
from tests.conformance.gateway_stack import GatewayStack, gateway_stack, route
from tests.conformance.test_gateway_edges import IRIS, serving
from tests.framework.waiting import eventually


@dataclass(frozen=True)
class Pair:
    """A certificate that vouches for itself, and its key, both as PEM."""

    certificate: bytes
    key: bytes

    def put(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Rename both into their places."""
        paths = folder / f"{name}.crt", folder / f"{name}.key"
        for path, content in zip(paths, (self.certificate, self.key), strict=True):
            fresh = folder / f".{path.name}"
            fresh.write_bytes(content)
            fresh.replace(path)
        return paths


def pair(name: str, serial: int) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    unencrypted = serialization.NoEncryption()
    return Pair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unencrypted),
    )


async def predict(stack: GatewayStack, server: Pair, client: Pair | None = None) -> str:
    """Predict over a new connection; returns which replica answered."""
    own = (client.key, client.certificate) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(server.certificate, *own)
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{stack.port}", credentials, options=options) as channel:
        return (await stack.infer_on(channel, IRIS)).model_version


async def serial_shown(port: int) -> int:
    """Serial number of the certificate that a new connection is shown."""

    def ask() -> int:
        return x509.load_pem_x509_certificate(
            ssl.get_server_certificate(("127.0.0.1", port)).encode()
        ).serial_number

    return await asyncio.to_thread(ask)


async def test_a_certificate_is_replaced_while_connections_stay(tmp_path: Path) -> None:
    first, second = pair("localhost", 1), pair("localhost", 2)
    certificate, key = first.put(tmp_path, "tls")
    async with serving(tls_certificate=certificate, tls_key=key) as stack:
        credentials = grpc.ssl_channel_credentials(first.certificate)
        async with grpc.aio.secure_channel(f"127.0.0.1:{stack.port}", credentials) as channel:
            assert (await stack.infer_on(channel, IRIS)).model_version == "one"
            second.put(tmp_path, "tls")

            async def shows_the_second() -> bool:
                return await serial_shown(stack.port) == 2

            await eventually(shows_the_second)
            assert (await stack.infer_on(channel, IRIS)).model_version == "one"  # on the old connection
        assert await predict(stack, second) == "one"
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://127.0.0.1:{stack.port}/")


async def test_clients_need_a_certificate_where_that_is_wanted(tmp_path: Path) -> None:
    server, ada, stranger = pair("localhost", 1), pair("ada", 2), pair("stranger", 3)
    certificate, key = server.put(tmp_path, "tls")
    ca, _ = ada.put(tmp_path, "clients")
    async with serving(tls_certificate=certificate, tls_key=key, tls_client_ca=ca) as stack:
        assert await predict(stack, server, ada) == "one"
        for client in (None, stranger):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await predict(stack, server, client)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len(stack._replicas[0].asked) == 1


async def test_services_that_listen_with_tls_are_believed_by_their_ca(tmp_path: Path) -> None:
    own, foreign = pair("localhost", 1), pair("localhost", 2)
    server = grpc.aio.server()
    add_CatalogServiceServicer_to_server(Catalog(), server)  # type: ignore[abstract]  # what is not asked for answers UNIMPLEMENTED
    credentials = grpc.ssl_server_credentials([(own.key, own.certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        for ca, code in ((own, grpc.StatusCode.OK), (foreign, grpc.StatusCode.UNAVAILABLE)):
            path, _ = ca.put(tmp_path, "ca")
            async with (
                serving(catalog_address=f"127.0.0.1:{port}", peer_ca=path) as stack,
                stack.channel() as channel,
            ):
                call = CatalogServiceStub(channel).GetCatalog(
                    GetCatalogRequest(name="prod"), metadata=[stack.authorization()], timeout=60
                )
                assert await call.code() is code
    finally:
        await server.stop(None)


async def test_a_key_of_another_certificate_is_refused_with_words(tmp_path: Path) -> None:
    certificate, _ = pair("localhost", 1).put(tmp_path, "one")
    _, key = pair("localhost", 2).put(tmp_path, "two")
    async with gateway_stack(tls_certificate=certificate, tls_key=key) as stack:
        with pytest.raises(ApplyFailedError, match=r"(?i)key"):
            await stack.apply([route(IRIS)])
