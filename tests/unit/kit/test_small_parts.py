"""Paging, limits, tokens, configuration, failpoints."""

from __future__ import annotations

import base64
import gc
import importlib.util
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace

from modelyard_kit import api_tokens, config, faults, garbage, limits, migrate, paging, protos, telemetry
from modelyard_kit.errors import InvalidField, LimitExceeded


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (7, 7), (1_000, 1_000), (5_000, 1_000)])
def test_page_sizes_are_clamped(asked: int, given: int) -> None:
    assert paging.page_size(asked) == given


def test_a_page_size_below_zero_is_refused() -> None:
    with pytest.raises(InvalidField, match="page_size"):
        paging.page_size(-1)


@given(st.text(), st.integers(-(2**63), 2**63 - 1))
def test_page_tokens_hold_their_key(text: str, number: int) -> None:
    assert paging.decode_token(paging.encode_token([text, number]), str, int) == (text, number)


@given(st.text(min_size=1))
def test_other_page_tokens_are_refused(token: str) -> None:
    try:
        key = paging.decode_token(token, str, int)
    except InvalidField as error:
        assert error.metadata == {"field": "page_token"}
    else:
        assert key is not None
        assert [type(part) for part in key] == [str, int]


def test_a_deeply_nested_page_token_is_refused() -> None:
    token = base64.urlsafe_b64encode(b"[" * 200_000).decode()
    with pytest.raises(InvalidField, match="page_token"):
        paging.decode_token(token, str)


@pytest.mark.parametrize("limit", limits.LIMITS.values(), ids=lambda limit: limit.name)
def test_every_limit_admits_its_maximum_and_no_more(limit: limits.Limit) -> None:
    limits.check(limit.name, limit.maximum)
    with pytest.raises(LimitExceeded) as caught:
        limits.check(limit.name, limit.maximum + 1)
    assert caught.value.metadata == {
        "limit": limit.name,
        "maximum": str(limit.maximum),
        "actual": str(limit.maximum + 1),
    }


def test_api_tokens() -> None:
    token, other = api_tokens.generate(), api_tokens.generate()
    assert api_tokens.token_id(token) != api_tokens.token_id(other)
    assert api_tokens.matches(token, api_tokens.hash_secret(token))
    assert not api_tokens.matches(other, api_tokens.hash_secret(token))
    assert api_tokens.token_id(token[:-1]) is None


def settings(**given: object) -> config.Settings:
    base = {"listen": "unix:/tmp/x.sock", "database": "postgresql://h/d", "token_file": Path("/t")}
    return config.Settings(**{**base, **given})


@pytest.mark.parametrize("address", ["127.0.0.1:80", "[::1]:80", "localhost:80", "127.8.8.8:1", "unix:/s"])
def test_local_addresses_need_no_tls(address: str) -> None:
    assert settings(listen=address).listen == address


@pytest.mark.parametrize("address", ["0.0.0.0:80", "10.0.0.1:80", "example.org:80", "[::]:80"])
def test_other_addresses_need_tls(address: str) -> None:
    with pytest.raises(ValueError, match="can be reached from outside"):
        settings(listen=address)
    pair = {"tls_certificate": Path("/c"), "tls_key": Path("/k")}
    assert settings(listen=address, **pair).listen == address


@pytest.mark.parametrize(
    "address", ["80", "host:", "host:x", "host:99999", "unix:relative", "unix:/" + "x" * 120]
)
def test_malformed_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"write unix|absolute|too long"):
        settings(listen=address)


@pytest.mark.parametrize("address", ["9400", ":9400", "host:x", "unix:/run/metrics"])
def test_prometheus_needs_a_host_and_a_port(address: str) -> None:
    """Without a host everybody could scrape."""
    with pytest.raises(ValueError, match="host:port"):
        settings(metrics_listen=address)
    assert settings(metrics_listen="127.0.0.1:9400").metrics_listen == "127.0.0.1:9400"
    assert settings().metrics_listen == ""


def test_every_problem_of_a_configuration_is_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_LISTEN", "nowhere")
    monkeypatch.setenv("MODELYARD_LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as caught:
        config.load(config.Settings)
    for name in ("MODELYARD_LISTEN", "MODELYARD_LOG_LEVEL", "MODELYARD_DATABASE", "MODELYARD_TOKEN_FILE"):
        assert name in str(caught.value)


def test_the_environment_rules_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "modelyard.toml"
    file.write_text('listen = "127.0.0.1:1"\ndatabase = "postgresql://h/d"\ntoken_file = "/t"\n')
    monkeypatch.setenv("MODELYARD_CONFIG_FILE", str(file))
    monkeypatch.setenv("MODELYARD_LISTEN", "127.0.0.1:2")
    loaded = config.load(config.Settings)
    assert (loaded.listen, loaded.database) == ("127.0.0.1:2", "postgresql://h/d")


async def test_failpoints_fire_as_often_as_asked() -> None:
    faults.configure("a=error*2")
    try:
        for _ in range(2):
            with pytest.raises(faults.InjectedFault):
                await faults.failpoint("a")
        await faults.failpoint("a")
        await faults.failpoint("b")
    finally:
        faults.configure("")


@pytest.mark.parametrize("text", ["a", "a=explode", "a=sleep", "a=sleep:x"])
def test_unknown_failpoint_actions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="failpoint"):
        faults.configure(text)


@pytest.mark.parametrize("service", ["artifact", "catalog", "governance", "inference"])
def test_the_name_of_a_migration_begins_with_its_revision(service: str) -> None:
    package = f"modelyard_{service}"
    folder = resources.files(package) / "migrations" / "versions"
    files = sorted(file for file in folder.iterdir() if file.name.endswith(".py"))
    assert all(f'\nrevision = "{file.name.partition("_")[0]}"\n' in file.read_text() for file in files)
    assert migrate.newest(package) == files[-1].name.partition("_")[0]


@pytest.mark.parametrize(
    "package", ["catalog", "artifact", "governance", "inference", "inference.replica", "gateway"]
)
def test_the_kit_is_loaded_before_grpc(package: str) -> None:
    spec = importlib.util.find_spec(f"modelyard_{package}.__main__")
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text("utf-8")
    imports = re.findall(r"^ *(?:from|import) (modelyard\w*|grpc)", text, re.MULTILINE)
    assert imports[0] == "modelyard_kit"


def test_programs_that_a_process_starts_do_not_crash_in_handlers_of_grpc() -> None:
    variable = "GRPC_ENABLE_FORK_SUPPORT"
    told = f"import modelyard_kit, os, sys; print(os.environ['{variable}'], 'grpc' in sys.modules)"
    clean = {name: value for name, value in os.environ.items() if name != variable}
    done = subprocess.run([sys.executable, "-c", told], env=clean, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["false", "False"]  # in time: grpc asks when it is loaded


def test_garbage_is_collected_again_once_a_process_serves() -> None:
    before = gc.get_threshold()
    try:
        garbage.hold()
        assert not gc.isenabled()
        garbage.settle()
        assert gc.isenabled()
        assert gc.get_threshold()[0] == garbage.THRESHOLD
    finally:
        gc.unfreeze()
        gc.enable()
        gc.set_threshold(*before)


def test_a_call_without_a_trace_begins_none_where_none_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)
    with telemetry.server_span("Get", {}) as span:
        assert span is trace.INVALID_SPAN
        assert telemetry.outgoing_context() == []


def test_the_trace_of_a_call_is_passed_on_even_where_none_is_taken() -> None:
    with telemetry.server_span("Get", {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "other-bin": b"x"}):
        [(key, value)] = telemetry.outgoing_context()
    assert (key, value.split("-")[1]) == ("traceparent", "a" * 32)


@given(st.datetimes(timezones=st.just(UTC)))
def test_moments_are_those_of_protobuf_itself(moment: datetime) -> None:
    expected = Timestamp()
    expected.FromDatetime(moment)
    assert protos.timestamp(moment) == expected
    assert protos.moment(expected) == moment
