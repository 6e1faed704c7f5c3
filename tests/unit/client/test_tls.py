"""TLS with certificates on both sides: what is given, what a server says to it, and certificates that are renewed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization

from modelyard import errors
from modelyard._tls import TlsFiles, tls_files
from modelyard.aio import AsyncClient
from modelyard.api.artifact.v1 import artifact_service_pb2, artifact_service_pb2_grpc
from modelyard.api.catalog.v1 import catalog_service_pb2, catalog_service_pb2_grpc
from tests.framework.certificates import Pair, pair

ONCE = ("prod.ml.iris", {"champion": 1})
"""What a call is made with that gRPC does not repeat when nobody is there."""
SERVER, ADA, STRANGER = pair("localhost", 1), pair("ada", 2), pair("stranger", 3)


class Catalog(catalog_service_pb2_grpc.CatalogServiceServicer):
    """Answers with the common name of whoever asks."""

    async def GetCatalog(self, _request: Any, context: Any) -> Any:
        names = context.auth_context().get("x509_common_name", [b""])
        return catalog_service_pb2.GetCatalogResponse(catalog={"name": names[0].decode()})


class Artifact(artifact_service_pb2_grpc.ArtifactServiceServicer):
    """Sends a file of two pieces, the second when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def ReadFile(self, _request: Any, _context: Any) -> AsyncIterator[Any]:
        yield artifact_service_pb2.ReadFileResponse(chunk=b"one")
        await self.go_on.wait()
        yield artifact_service_pb2.ReadFileResponse(chunk=b"two")


@asynccontextmanager
async def serving(*clients: Pair, artifact: Artifact | None = None) -> AsyncIterator[str]:
    """A server with TLS; gives its target. With `clients` it wants to see one of their certificates."""
    server = grpc.aio.server()
    catalog_service_pb2_grpc.add_CatalogServiceServicer_to_server(Catalog(), server)  # type: ignore[abstract]  # what is not asked for answers UNIMPLEMENTED
    if artifact:
        artifact_service_pb2_grpc.add_ArtifactServiceServicer_to_server(artifact, server)
    credentials = grpc.ssl_server_credentials(
        [(SERVER.key, SERVER.certificate)],
        b"".join(client.certificate for client in clients) or None,
        require_client_auth=bool(clients),
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"https://127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """The certificate that the server is believed by."""
    return SERVER.put(tmp_path, "server")[0]


def client(target: str, ca: Path | None, shown: tuple[Path, Path] | None = None) -> AsyncClient:
    certificate, key = shown or (None, None)
    return AsyncClient(target, ca_certificate=ca, client_certificate=certificate, client_key=key)


async def test_a_certificate_is_shown(tmp_path: Path, ca: Path) -> None:
    async with serving(ADA) as target, client(target, ca, ADA.put(tmp_path, "ada")) as ada:
        assert (await ada.catalogs.get("any")).name == "ada"
    async with serving() as target, client(target, ca) as nobody:
        assert (await nobody.catalogs.get("any")).name == ""


async def test_a_server_that_wants_one_is_explained(tmp_path: Path, ca: Path) -> None:
    late = pair("late", 4, life=timedelta(minutes=-1))
    async with serving(ADA, late) as target:
        for shown, said in (
            (None, "wants to see a certificate of its clients: give client_certificate=… and client_key=…"),
            (STRANGER, f"refuses client_certificate {tmp_path}/shown.crt"),
            (late, f"refuses client_certificate {tmp_path}/shown.crt"),
        ):
            async with client(target, ca, shown and shown.put(tmp_path, "shown")) as refused:
                with pytest.raises(errors.TlsFailed) as caught:
                    await refused.aliases.set(*ONCE)
            assert str(caught.value).startswith(f"{target} closes the connection; it probably {said}")
            assert "--client-key" in str(caught.value)
            assert caught.value.request_id


async def test_a_server_that_is_not_trusted_is_explained(tmp_path: Path) -> None:
    foreign, _ = STRANGER.put(tmp_path, "foreign")
    async with serving() as target:
        for ca in (None, foreign):
            async with client(target, ca) as distrustful:
                with pytest.raises(
                    errors.TlsFailed, match=r"is not accepted: self-signed .*ca_certificate=…"
                ):
                    await distrustful.aliases.set(*ONCE)
    async with client(target, foreign) as late:
        with pytest.raises(errors.Unavailable) as caught:
            await late.aliases.set(*ONCE)
        assert not isinstance(caught.value, errors.TlsFailed)  # nobody is there


async def test_a_server_without_tls_is_explained(ca: Path) -> None:
    """Envoy answers what it does not understand as HTTP."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        target = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with client(target, ca) as wrong:
            with pytest.raises(errors.TlsFailed, match="answers without TLS; write http://"):
                await wrong.aliases.set(*ONCE)


async def test_a_renewed_certificate_is_shown_to_the_next_call(tmp_path: Path, ca: Path) -> None:
    grace = pair("grace", 5)
    shown = certificate, key = ADA.put(tmp_path, "shown")
    artifact = Artifact()  # type: ignore[abstract]  # what is not asked for answers UNIMPLEMENTED
    async with (
        serving(ADA, grace, artifact=artifact) as target,
        client(target, ca, shown) as renewing,
    ):
        assert (await renewing.catalogs.get("any")).name == "ada"
        pieces = renewing.artifacts.read_file("prod.ml.iris/1", "file")
        assert await anext(pieces) == b"one"
        certificate.write_bytes(grace.certificate)
        assert (await renewing.catalogs.get("any")).name == "ada"  # half of it is no pair
        key.write_bytes(grace.key)
        assert (await renewing.catalogs.get("any")).name == "grace"
        artifact.go_on.set()
        assert [piece async for piece in pieces] == [b"two"]  # begun on the connection before
        key.unlink()
        assert (await renewing.catalogs.get("any")).name == "grace"


@pytest.mark.parametrize("given", ["client_certificate", "client_key"])
def test_half_of_a_pair_is_refused(given: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"{given} needs .*: give both or neither"):
        AsyncClient("https://host", **{given: "file"})


def test_a_certificate_needs_a_connection_with_tls(tmp_path: Path) -> None:
    certificate, key = ADA.put(tmp_path, "ada")
    for target in ("http://127.0.0.1:1", "unix:/run/modelyard.sock"):
        with pytest.raises(
            errors.ConfigurationError, match=rf"target {target}: .*client_certificate and client_key"
        ):
            AsyncClient(target, client_certificate=certificate, client_key=key)
    AsyncClient("127.0.0.1:1", client_certificate=certificate, client_key=key)  # means TLS
    AsyncClient(
        "https://host", services={"catalog": "unix:/socket"}, client_certificate=certificate, client_key=key
    )


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    certificate, key = ADA.put(tmp_path, "ada")
    _, other = STRANGER.put(tmp_path, "other")
    loaded: Any = serialization.load_pem_private_key(ADA.key, None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    cut = tmp_path / "cut.crt"
    cut.write_bytes(ADA.certificate[:200])
    missing = tmp_path / "missing"
    for files, said in (
        ((missing, None, None), f"ca_certificate {missing} cannot be read: No such file"),
        ((None, certificate, missing), f"client_key {missing} cannot be read: No such file"),
        ((None, tmp_path, key), f"client_certificate {tmp_path} cannot be read: Is a directory"),
        ((key, None, None), f"ca_certificate {key} holds no certificate"),
        ((None, key, key), f"client_certificate {key} holds no certificate"),
        ((None, certificate, certificate), f"client_key {certificate} holds no private key"),
        ((None, certificate, other), f"client_key {other} does not fit client_certificate {certificate}"),
        ((None, certificate, locked), f"client_key {locked} is encrypted"),
        ((None, cut, key), f"client_certificate {cut} and client_key {key} cannot be used"),
    ):
        with pytest.raises(errors.ConfigurationError) as caught:
            tls_files(*files).read()
        assert str(caught.value).startswith(said)
    assert tls_files(None, certificate, key).read() == (None, ADA.key, ADA.certificate)


def test_paths_are_those_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert tls_files("ca.pem", None, None) == TlsFiles(tmp_path / "ca.pem")
