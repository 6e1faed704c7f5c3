"""TLS at a real Envoy: certificates that are replaced while it serves, and clients that have to show one."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import aiohttp
import grpc
import grpc.aio
import pytest
from cryptography import x509

from modelyard.aio import AsyncClient
from modelyard.api.catalog.v1.catalog_service_pb2 import GetCatalogRequest
from modelyard.api.catalog.v1.catalog_service_pb2_grpc import (
    CatalogServiceStub,
    add_CatalogServiceServicer_to_server,
)
from modelyard.errors import TlsFailed
from modelyard_gateway.apply import ApplyFailedError
from tests.conformance.gateway_control_plane import Catalog
from tests.conformance.gateway_stack import ADA, GatewayStack, gateway_stack, route
from tests.conformance.test_gateway_edges import IRIS, serving
from tests.conformance.whole_gateway import whole_gateway
from tests.framework.certificates import Pair, pair
from tests.framework.cli import Cli
from tests.framework.waiting import eventually


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


async def test_the_client_and_the_command_line_show_a_certificate(tmp_path: Path) -> None:
    server, ada, stranger = pair("localhost", 1), pair("ada", 2), pair("stranger", 3)
    certificate, key = server.put(tmp_path, "tls")
    ca, _ = ada.put(tmp_path, "clients")
    shown, own_key = ada.put(tmp_path, "ada")
    foreign, foreign_key = stranger.put(tmp_path, "stranger")
    rows = [[1.0, 2.0, 3.0, 4.0]]
    cli = Cli(tmp_path / "home")
    async with whole_gateway(tls_certificate=certificate, tls_key=key, tls_client_ca=ca) as gateway:
        stack = gateway.stack
        target, token = f"https://127.0.0.1:{stack.port}", stack.issuer.token(ADA)

        async def connect(certificate_: Path | None, key_: Path | None) -> None:
            async with AsyncClient(
                target, token, ca_certificate=certificate, client_certificate=certificate_, client_key=key_
            ) as client:
                assert [found.name async for found in client.catalogs.list()] == ["prod"]
                assert (await client.predict(IRIS, rows)).output.tolist() == rows

        await connect(shown, own_key)
        with pytest.raises(
            TlsFailed, match=f"{target}: it wants to see .*client_certificate=… and client_key=…"
        ):
            await connect(None, None)
        with pytest.raises(TlsFailed, match=f"{target}: it refuses client_certificate {foreign}, .*unknown"):
            await connect(foreign, foreign_key)

        (tmp_path / "token").write_text(token)
        (tmp_path / "token").chmod(0o600)
        login = (
            "login",
            target,
            "--token-file",
            str(tmp_path / "token"),
            "--ca-certificate",
            str(certificate),
        )
        refused = await asyncio.to_thread(cli.refused, *login)
        assert "--client-certificate FILE --client-key FILE" in refused
        assert "hint" not in refused
        pair_ = ("--client-certificate", str(shown), "--client-key", str(own_key))
        await asyncio.to_thread(cli.ok, *login, *pair_)
        saved = (tmp_path / "home" / "contexts.json").read_text()
        assert str(own_key) in saved
        assert "PRIVATE KEY" not in saved
        assert [row["name"] for row in await asyncio.to_thread(cli.json, "catalogs", "list")] == ["prod"]
        (tmp_path / "rows.json").write_text(json.dumps(rows))
        predicted = await asyncio.to_thread(cli.json, "predict", IRIS, "--input", str(tmp_path / "rows.json"))
        assert predicted["outputs"] == {"y": rows}
        told = await asyncio.to_thread(cli.json, "context", "show")
        assert (told["client_certificate"], told["client_key"]) == (str(shown), str(own_key))


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
