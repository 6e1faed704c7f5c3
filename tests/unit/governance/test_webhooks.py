"""Webhooks without a network: which addresses may be called, who is told of what, what is signed, how long one waits."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelyard_governance.secret_files import UnusableSecretError
from modelyard_governance.webhooks.dispatcher import FIRST_PAUSE, LONGEST_PAUSE, pause_after
from modelyard_governance.webhooks.models import State, Webhook
from modelyard_governance.webhooks.secrets import load_or_create_sealer, new_secret, signature
from modelyard_governance.webhooks.sender import cloud_event
from modelyard_governance.webhooks.targets import Forbidden, check_url, checked_sockets, is_public
from modelyard_kit.errors import InvalidField

INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
]
OUTSIDE = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(Forbidden, match="inside"):
        checked_sockets(allow_private=False)((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 443)))


@pytest.mark.parametrize("address", OUTSIDE)
def test_addresses_outside(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https://",
        "example.com",
        "",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://example.com/#part",
        "https://example.com:99999/",
        "https://exa mple.com/",
        "https://example.com/\n",
        "https://example.com\\@127.0.0.1/",
        "https://localhost/",
        "https://a.localhost/",
        "https://127.0.0.1/",
        "https://%31%32%37.0.0.1/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest",
        "https://example.com/" + "a" * 2_048,
    ],
)
def test_addresses_that_are_refused_at_once(url: str) -> None:
    with pytest.raises(InvalidField) as refused:
        check_url(url, allow_private=False)
    assert refused.value.metadata["field"] == "webhook.url"


@pytest.mark.parametrize(
    "url", ["https://example.com/", "https://hooks.example.com:8443/a/b?c=d", "https://8.8.8.8/"]
)
def test_addresses_that_are_taken(url: str) -> None:
    assert check_url(url, allow_private=False) == url


def test_an_installation_may_allow_addresses_inside() -> None:
    assert check_url("http://127.0.0.1:8080/x", allow_private=True)
    make = checked_sockets(allow_private=True)
    with make((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))) as made:
        assert made.family == socket.AF_INET


def webhook(**given: Any) -> Webhook:
    whole: dict[str, Any] = {
        "id": "w",
        "name": "ops",
        "url": "https://example.com/",
        "types": (),
        "resource": "",
        "state": State.ENABLED,
        "pause_reason": "",
        "failures": 0,
        "quiet_until": None,
        "creator": "ada",
        "create_time": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Webhook(**(whole | given))


@pytest.mark.parametrize(
    ("types", "resource", "event", "about", "wanted"),
    [
        ((), "", "catalog.model.created", "prod.ml.iris", True),
        (("catalog.model.created",), "", "catalog.model.created", "x", True),
        (("catalog.model.created",), "", "catalog.model.created.again", "x", False),
        (("catalog.*",), "", "catalog.model.created", "x", True),
        (("catalog.*",), "", "catalogue.model.created", "x", False),
        (("catalog.model.*", "governance.*"), "", "governance.grant.created", "x", True),
        ((), "prod", "t", "prod", True),
        ((), "prod", "t", "prod.ml.iris/3", True),
        ((), "prod", "t", "production.ml", False),
        ((), "prod.ml.iris", "t", "prod.ml.iris/3", True),
        ((), "prod.ml.iris", "t", "prod.ml.iris@champion", True),
        ((), "prod.ml.iris", "t", "prod.ml.iris2", False),
        ((), "prod.ml.iris/3", "t", "prod.ml.iris/30", False),
        (("catalog.*",), "prod", "catalog.model.created", "test.ml", False),
    ],
)
def test_who_is_told_of_what(
    types: tuple[str, ...], resource: str, event: str, about: str, wanted: bool
) -> None:
    assert webhook(types=types, resource=resource).wants(event, about) is wanted


def test_signed_as_the_libraries_of_standard_webhooks_check_it() -> None:
    secret = new_secret()
    assert secret.startswith("whsec_")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    assert len(key) == 32
    body = b'{"a":"\xc3\xa4"}'
    wanted = hmac.new(key, b"e1.1767225600." + body, hashlib.sha256).digest()
    assert signature(secret, "e1", 1_767_225_600, body) == "v1," + base64.b64encode(wanted).decode()
    # The example of the specification.
    example = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert example == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_event_is_a_cloud_event_with_the_same_bytes_each_time() -> None:
    event = {
        "id": "e1",
        "type": "catalog.model.created",
        "time": "2026-01-01T00:00:00Z",
        "resource": {"id": "m1", "name": "prod.ml.iris"},
        "data": {"ä": 1},
    }
    body = cloud_event(json.dumps(event), 7, "/modelyard/x")
    assert cloud_event(json.dumps(event), 7, "/modelyard/x") == body
    assert json.loads(body) == {
        "specversion": "1.0",
        "id": "e1",
        "source": "/modelyard/x",
        "type": "modelyard.catalog.model.created",
        "subject": "prod.ml.iris",
        "time": "2026-01-01T00:00:00Z",
        "datacontenttype": "application/json",
        "sequence": "7",
        "data": event,
    }


def test_each_wait_is_longer_and_none_without_end() -> None:
    for failures in range(1, 100):
        whole = min(FIRST_PAUSE * 2 ** min(failures - 1, 30), LONGEST_PAUSE)
        assert whole / 2 <= pause_after(failures) <= whole
    assert pause_after(10_000) <= timedelta(hours=1)


class TestKeyFile:
    def test_secrets_are_sealed_with_a_key_of_the_owner_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "secrets" / "webhook.key"
        sealer = load_or_create_sealer(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        sealed = sealer.seal("whsec_abc")
        assert b"abc" not in sealed
        assert load_or_create_sealer(path).open(sealed) == "whsec_abc"
        assert load_or_create_sealer(tmp_path / "other.key").open(sealed) is None

    def test_a_replaced_key_still_opens_what_it_sealed(self, tmp_path: Path) -> None:
        path, newer = tmp_path / "webhook.key", tmp_path / "newer.key"
        sealed = load_or_create_sealer(path).seal("s")
        load_or_create_sealer(newer)
        path.write_bytes(newer.read_bytes() + path.read_bytes())
        both = load_or_create_sealer(path)
        assert both.open(sealed) == "s"
        assert load_or_create_sealer(newer).open(both.seal("t")) == "t"

    def test_anything_else_is_refused(self, tmp_path: Path) -> None:
        for content in (b"", b"nonsense\n"):
            (tmp_path / "webhook.key").write_bytes(content)
            with pytest.raises(UnusableSecretError, match="Fernet"):
                load_or_create_sealer(tmp_path / "webhook.key")
