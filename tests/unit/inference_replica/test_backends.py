from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard import RemoteModel
from modelyard.remote import InvalidRemote
from modelyard_inference.replica.backends import Backend, find, model_of
from modelyard_inference.runtimes import LoadError

URL = "grpcs://triton.example.com:8001"


def backends(folder: Path, content: Any, mode: int = 0o600) -> str:
    path = folder / "backends.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return str(path)


def test_a_server_that_is_named_may_be_called(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("ours")
    sent = {"authorization": "Bearer secret"}
    local = "grpc://127.0.0.1:8001"
    content = {URL: {"ca": str(tmp_path / "ca.pem"), "metadata": sent}, local: {"metadata": sent}}
    path = backends(tmp_path, content)
    assert find(path, URL) == Backend(URL, b"ours", (("authorization", "Bearer secret"),))
    assert find(path, local).ca is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({}, "no server that predictions may be passed on to; .* MODELYARD_BACKENDS_FILE points at"),
        ({"grpcs://triton.example.com:8002": {}}, "no server that predictions may be"),
        ({"grpc://triton.example.com:8001": {}}, "no server that predictions may be"),
        ("[]", "must be an object of servers"),
        ("{", "MODELYARD_BACKENDS_FILE: Expecting"),
        ({"triton": {}}, "is not grpc://host:port"),
        ({URL: {"token": "a"}}, 'may have "ca" and "metadata"'),
        ({URL: {"ca": "/nowhere.pem"}}, "No such file"),
        ({URL: {"metadata": ["a"]}}, "must be an object of texts"),
        ({URL: {"metadata": {"Authorization": "a"}}}, "'Authorization' must be lower-case"),
        ({URL: {"metadata": {"grpc-timeout": "1S"}}}, "'grpc-timeout' must be"),
        ({URL: {"metadata": {"token-bin": "a"}}}, "'token-bin' must be"),
        ({URL: {"metadata": {"token": "a\nb"}}}, "'token' must be"),
    ],
)
def test_others_may_not(tmp_path: Path, content: Any, problem: str) -> None:
    with pytest.raises(LoadError, match=problem):
        find(backends(tmp_path, content), URL)


def test_secrets_stay_secret(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="chmod 600"):
        find(backends(tmp_path, {URL: {}}, 0o640), URL)
    plain = "grpc://triton.example.com:8001"
    with pytest.raises(LoadError, match="as it is; use grpcs") as caught:
        find(backends(tmp_path, {plain: {"metadata": {"authorization": "Bearer secret"}}}), plain)
    assert "Bearer" not in str(caught.value)
    with pytest.raises(LoadError, match="for a server with grpcs"):
        find(backends(tmp_path, {plain: {"ca": "/ca.pem"}}), plain)


def test_without_a_file_nothing_may_be_called(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="the file that MODELYARD_BACKENDS_FILE points at"):
        find("", URL)
    with pytest.raises(LoadError, match="the file that MODELYARD_BACKENDS_FILE points at"):
        find(str(tmp_path / "backends.json"), URL)


def test_the_artifact_says_where_its_model_runs(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="has no remote.json"):
        model_of(tmp_path)
    model = RemoteModel(URL, "iris", "2")
    (tmp_path / "remote.json").write_text(model.to_json())
    assert model_of(tmp_path) == model
    (tmp_path / "remote.json").write_text("{}")
    with pytest.raises(LoadError, match="remote.json: url: is missing"):
        model_of(tmp_path)


@pytest.mark.parametrize(
    "url",
    ["grpc://127.0.0.1:1", "grpcs://[::1]:8001", "grpc://triton:65535", "unix:/run/triton.sock"],
)
def test_addresses(url: str) -> None:
    assert RemoteModel.from_json(RemoteModel(url, "iris").to_json()).url == url


@pytest.mark.parametrize(
    "url",
    [
        "", "triton:8001", "http://triton:8001", "grpc://triton", "grpc://triton:0", "grpc://triton:65536",
        "grpc://user@triton:8001", "grpc://triton:8001/iris", "grpc://-triton:8001", "unix:relative", "unix:/a b", 7,
    ],
)  # fmt: skip
def test_what_is_no_address(url: Any) -> None:
    with pytest.raises(InvalidRemote, match="url: "):
        RemoteModel(url, "iris")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nothing", "is not JSON"),
        ("[]", "must be an object"),
        ('{"url": "grpc://a:1"}', "model: is missing"),
        ('{"url": "grpc://a:1", "model": ""}', "model: say what"),
        ('{"url": "grpc://a:1", "model": 7}', "model: must be printable"),
        ('{"url": "grpc://a:1", "model": "a", "version": "\\n"}', "version: must be printable"),
        ('{"url": "grpc://a:1", "model": "a", "token": "b"}', "token: is no field"),
    ],
)
def test_what_says_nothing(text: str, problem: str) -> None:
    with pytest.raises(InvalidRemote, match=problem):
        RemoteModel.from_json(text)
