from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from modelyard import AsyncClient, Client, contexts
from modelyard.contexts import Context
from modelyard.errors import ConfigurationError


def test_contexts_are_kept_in_a_private_place(home: Path) -> None:
    path = contexts.save("local", Context("127.0.0.1:1", "secret"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert contexts.resolve() == Context("127.0.0.1:1", "secret")
    assert "secret" not in repr(contexts.read())
    assert [p.name for p in home.iterdir()] == [contexts.FILE_NAME]


def test_one_context_is_current() -> None:
    contexts.save("a", Context("127.0.0.1:1"))
    contexts.save("b", Context("127.0.0.1:2"), make_current=False)
    assert contexts.resolve().target == "127.0.0.1:1"
    contexts.use("b")
    assert contexts.resolve().target == "127.0.0.1:2"
    assert contexts.resolve("a").target == "127.0.0.1:1"
    contexts.remove("b")
    assert contexts.read().current == "a"
    with pytest.raises(ConfigurationError, match=r"'b' is not known \(a\)"):
        contexts.use("b")


def test_nothing_saved_says_how_to_begin() -> None:
    with pytest.raises(ConfigurationError, match="modelyard login"):
        contexts.resolve()


def test_the_environment_overrides_but_never_sends_a_token_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    contexts.save("a", Context("127.0.0.1:1", "secret"))
    monkeypatch.setenv("MODELYARD_TARGET", "127.0.0.1:9")
    assert contexts.resolve() == Context("127.0.0.1:9", "")
    monkeypatch.setenv("MODELYARD_TARGET", "127.0.0.1:1")
    assert contexts.resolve().token == "secret"
    monkeypatch.setenv("MODELYARD_TOKEN", "other")
    assert contexts.resolve().token == "other"
    monkeypatch.setenv("MODELYARD_CONTEXT", "nowhere")
    with pytest.raises(ConfigurationError, match="nowhere"):
        contexts.resolve()


def test_certificates_come_from_the_context_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Context("https://a", "secret", "/ca", client_certificate="/crt", client_key="/key")
    contexts.save("a", saved)
    assert contexts.resolve() == saved
    monkeypatch.setenv("MODELYARD_TARGET", "https://b")
    monkeypatch.setenv("MODELYARD_CA_CERTIFICATE", "/other-ca")
    assert contexts.resolve() == Context("https://b", "", "/other-ca")
    monkeypatch.setenv("MODELYARD_CLIENT_CERTIFICATE", "/other-crt")
    with pytest.raises(ConfigurationError, match="MODELYARD_CLIENT_KEY belong together"):
        contexts.resolve()
    monkeypatch.setenv("MODELYARD_CLIENT_KEY", "/other-key")
    there = Context("https://b", "", "/other-ca", client_certificate="/other-crt", client_key="/other-key")
    assert contexts.resolve() == there
    monkeypatch.delenv("MODELYARD_TARGET")
    assert contexts.resolve() == replace(there, target="https://a", token="secret")


def test_the_environment_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_TARGET", "127.0.0.1:9")
    monkeypatch.setenv("MODELYARD_TOKEN", "t")
    assert contexts.resolve() == Context("127.0.0.1:9", "t")
    assert isinstance(Client.from_context(), Client)
    assert isinstance(AsyncClient.from_context(), AsyncClient)


def test_a_file_that_others_may_read_is_refused_with_the_remedy() -> None:
    path = contexts.save("a", Context(token="secret"))
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        contexts.read()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"contexts": {"a": {"target": 1, "x": 2}}, "current": []}', "{}"]
)
def test_a_damaged_file_is_named(text: str) -> None:
    path = contexts.save("a", Context())
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"is damaged .*modelyard login"):
        contexts.read()


def test_a_newer_file_is_understood() -> None:
    path = contexts.save("a", Context("127.0.0.1:1"))
    data = json.loads(path.read_text())
    data["contexts"]["a"]["future"] = True
    path.write_text(json.dumps(data))
    assert contexts.resolve("a").target == "127.0.0.1:1"


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b"])
def test_names_of_contexts(name: str) -> None:
    with pytest.raises(ConfigurationError, match="use letters"):
        contexts.save(name, Context())


def test_a_secret_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret\n")
    path.chmod(0o600)
    assert contexts.read_secret(path) == "secret"
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        contexts.read_secret(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        contexts.read_secret(tmp_path / "none")
