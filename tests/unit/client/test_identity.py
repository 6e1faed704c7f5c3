"""Tokens, targets, retries, deadlines, traces: what every call carries."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from modelyard import Client, errors
from modelyard._channel import SERVICE_CONFIG, parse_target
from modelyard._pager import AsyncPager
from modelyard._sync import run
from modelyard._token import TokenSource
from modelyard.api.catalog.v1 import catalog_service_pb2

from .fake import MODULES, Fake, Refusal

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Exchange:
    """Gives tokens `jwt-1`, `jwt-2` … that live for ten minutes."""

    def __init__(self) -> None:
        self.now = NOW
        self.made = 0
        self.broken = False

    async def __call__(self, _: str) -> tuple[str, datetime]:
        await asyncio.sleep(0)
        if self.broken:
            raise errors.Unavailable("governance is away")
        self.made += 1
        return f"jwt-{self.made}", self.now + timedelta(minutes=10)

    def source(self, token: str = "secret") -> TokenSource:
        return TokenSource(token, self, now=lambda: self.now)


async def test_one_exchange_serves_all_calls_and_is_renewed_before_the_end() -> None:
    exchange = Exchange()
    source = exchange.source()
    assert set(await asyncio.gather(*(source.bearer() for _ in range(10)))) == {"jwt-1"}
    exchange.now += timedelta(minutes=8, seconds=59)
    assert await source.bearer() == "jwt-1"
    exchange.now += timedelta(seconds=2)
    assert await source.bearer() == "jwt-2"


async def test_while_governance_is_away_the_token_is_used_to_its_end() -> None:
    exchange = Exchange()
    source = exchange.source()
    await source.bearer()
    exchange.broken = True
    exchange.now += timedelta(minutes=9, seconds=30)
    assert await source.bearer() == "jwt-1"
    exchange.now += timedelta(minutes=1)
    with pytest.raises(errors.Unavailable):
        await source.bearer()


async def test_a_jwt_of_an_external_issuer_is_sent_as_it_is() -> None:
    exchange = Exchange()
    source = exchange.source("eyJh.b.c")
    assert await source.bearer() == "eyJh.b.c"
    source.forget("eyJh.b.c")
    assert await source.bearer() == "eyJh.b.c"
    assert not source.renewable
    assert exchange.made == 0


def test_a_refused_token_is_replaced_once(fake: Fake, client: Client) -> None:
    refusals = iter([True, False])

    def answer(_: object) -> Any:
        if next(refusals):
            raise Refusal("UNAUTHENTICATED", message="Jwt is expired")
        return catalog_service_pb2.GetCatalogResponse()

    fake.answers["GetCatalog"] = answer
    client.catalogs.get("prod")
    assert len(fake.requests("ExchangeToken")) == 2
    assert len(fake.requests("GetCatalog")) == 2


def test_a_token_refused_twice_is_an_error(fake: Fake, client: Client) -> None:
    def refuse(_: object) -> None:
        raise Refusal("UNAUTHENTICATED", "TOKEN_INVALID")

    fake.answers["GetCatalog"] = refuse
    with pytest.raises(errors.TokenInvalid):
        client.catalogs.get("prod")
    assert len(fake.requests("GetCatalog")) == 2


def test_a_refused_token_of_a_stream_is_replaced_too(fake: Fake, client: Client) -> None:
    from modelyard.api.artifact.v1 import artifact_service_pb2

    refusals = iter([True, False])

    def answer(_: object) -> Any:
        if next(refusals):
            raise Refusal("UNAUTHENTICATED", "TOKEN_EXPIRED")
        return [
            artifact_service_pb2.ReadFileResponse(chunk=b"ab"),
            artifact_service_pb2.ReadFileResponse(chunk=b"c"),
        ]

    fake.answers["ReadFile"] = answer
    assert b"".join(client.artifacts.read_file("prod.ml.iris/1", "a")) == b"abc"


def test_without_a_token_calls_carry_none(fake: Fake) -> None:
    with Client(fake.target) as client:
        client.catalogs.get("prod")
        assert "authorization" not in fake.metadata("GetCatalog")[0]
        with pytest.raises(errors.TokenMissing, match="modelyard login"):
            client.access_token()


def test_reads_are_repeated_while_a_service_is_unavailable(fake: Fake, client: Client) -> None:
    refusals = iter([True, True, False])

    def answer(_: object) -> Any:
        if next(refusals):
            raise Refusal("UNAVAILABLE")
        return catalog_service_pb2.GetCatalogResponse()

    fake.answers["GetCatalog"] = answer
    client.catalogs.get("prod")
    assert len(fake.requests("GetCatalog")) == 3


@pytest.mark.parametrize("verb", ["CreateToken", "SetAliases", "UpdateDeployment", "DeleteDeployment"])
def test_calls_that_must_not_be_repeated_are_not(fake: Fake, client: Client, verb: str) -> None:
    from .test_surface import CALLS

    def refuse(_: object) -> None:
        raise Refusal("UNAVAILABLE")

    fake.answers[verb] = refuse
    with pytest.raises(errors.Unavailable):
        CALLS[verb](client)
    assert len(fake.requests(verb)) == 1


def test_the_retry_table_names_only_calls_that_exist() -> None:
    known = {
        m.name for module in MODULES for s in module.DESCRIPTOR.services_by_name.values() for m in s.methods
    }
    named = {name["method"] for config in SERVICE_CONFIG["methodConfig"] for name in config["name"]}
    assert named <= known


def test_nothing_listening_is_unavailable() -> None:
    with Client("127.0.0.1:1", timeout=2) as client, pytest.raises(errors.Unavailable):
        client.catalogs.get("prod")


def test_calls_end_at_their_deadline(fake: Fake) -> None:
    fake.hanging.add("SetAliases")
    with Client(fake.target, timeout=0.2) as client, pytest.raises(TimeoutError) as caught:
        client.aliases.set("prod.ml.iris", {"champion": 1})
    assert isinstance(caught.value, errors.DeadlineExceeded)


def test_a_closed_client_says_so(fake: Fake) -> None:
    client = Client(fake.target)
    client.close()
    with pytest.raises(errors.ConfigurationError, match="closed"):
        client.catalogs.get("prod")


def test_the_blocking_client_refuses_its_own_loop(client: Client) -> None:
    async def wrong() -> None:
        client.catalogs.get("prod")

    with pytest.raises(RuntimeError, match="AsyncClient"):
        run(wrong())


async def test_the_blocking_client_works_inside_a_running_loop(client: Client) -> None:
    assert client.catalogs.get("prod").name == ""


def test_calls_carry_the_trace_they_are_part_of(fake: Fake, client: Client) -> None:
    from opentelemetry import trace

    parent = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))

    async def call() -> None:
        with trace.use_span(trace.NonRecordingSpan(parent)):
            await client._async.catalogs.get("prod")

    run(call())
    assert fake.metadata("GetCatalog")[0]["traceparent"].startswith(f"00-{0xABC:032x}-")


@pytest.mark.parametrize(
    ("text", "address", "secure"),
    [
        ("127.0.0.1:8080", "127.0.0.1:8080", False),
        ("localhost", "localhost:8080", False),
        ("http://[::1]:9", "[::1]:9", False),
        ("https://models.example.com", "models.example.com:443", True),
        ("https://models.example.com:8443/", "models.example.com:8443", True),
        ("unix:/run/modelyard.sock", "unix:/run/modelyard.sock", False),
    ],
)
def test_targets(text: str, address: str, *, secure: bool) -> None:
    endpoint = parse_target(text)
    assert (endpoint.address, endpoint.tls is not None) == (address, secure)


@pytest.mark.parametrize("text", ["models.example.com:80", "http://10.0.0.1:8080", "0.0.0.0:8080"])
def test_another_machine_without_tls_is_refused(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="without TLS would show your token"):
        parse_target(text)
    assert parse_target(text, insecure=True).tls is None


@pytest.mark.parametrize("text", ["", "ftp://host:1", "host:port", "host:1/path", "host:99999", "https://"])
def test_malformed_targets_are_named(text: str) -> None:
    with pytest.raises(errors.ConfigurationError, match="is not understood"):
        parse_target(text)


def test_a_certificate_that_cannot_be_read_or_used_is_refused() -> None:
    with pytest.raises(errors.ConfigurationError, match="cannot be read"):
        Client("https://host", ca_certificate="/nowhere.pem")
    with pytest.raises(errors.ConfigurationError, match="uses no certificate"):
        Client("http://127.0.0.1:1", ca_certificate="/nowhere.pem")


def test_services_override_the_target_one_by_one(fake: Fake) -> None:
    with Client("127.0.0.1:1", services={"catalog": fake.target}) as client:
        client.catalogs.get("prod")
    with pytest.raises(errors.ConfigurationError, match="services: metrics unknown"):
        Client(services={"metrics": "127.0.0.1:1"})


async def test_a_pager_walks_and_stops_early_and_refuses_to_run_in_circles() -> None:
    asked: list[str] = []

    async def fetch(token: str) -> tuple[list[int], str]:
        asked.append(token)
        start = int(token or 0)
        return [start, start + 1], "" if start == 4 else str(start + 2)

    pager = AsyncPager(fetch)
    assert [row async for row in pager] == [0, 1, 2, 3, 4, 5]
    assert await pager.collect() == [0, 1, 2, 3, 4, 5]
    asked.clear()
    assert await pager.collect(limit=3) == [0, 1, 2]
    assert asked == ["", "2"]

    async def circle(_: str) -> tuple[list[int], str]:
        return [1], "same"

    with pytest.raises(errors.InternalError, match="same page token twice"):
        await AsyncPager(circle).collect()


def test_a_list_reads_page_after_page(fake: Fake, client: Client) -> None:
    def answer(request: Any) -> Any:
        page = int(request.page_token or 0)
        token = str(page + 1) if page < 2 else ""
        return catalog_service_pb2.ListCatalogsResponse(
            catalogs=[{"name": f"c{page}"}], next_page_token=token
        )

    fake.answers["ListCatalogs"] = answer
    assert [catalog.name for catalog in client.catalogs.list(page_size=1)] == ["c0", "c1", "c2"]
    assert [len(page) for page in client.catalogs.list().pages()] == [1, 1, 1]
    assert {request.page_size for request in fake.requests("ListCatalogs")} == {0, 1}
