from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from modelyard import Client
from modelyard._sync import run
from modelyard.api.catalog.v1 import catalog_service_pb2
from modelyard.api.governance.v1 import governance_service_pb2

from .fake import Fake


def exchange(request: Any) -> Any:
    answer = governance_service_pb2.ExchangeTokenResponse(access_token=f"jwt-of-{request.api_token}")
    answer.expire_time.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    return answer


def one_event(_request: Any) -> Any:
    """Without an event a watch waits for ever."""
    return catalog_service_pb2.WatchEventsResponse(events=[{"id": "e"}], resume_token="1")


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake({"ExchangeToken": exchange, "WatchEvents": one_event})
    run(server.start())
    yield server
    run(server.stop())


@pytest.fixture
def client(fake: Fake) -> Iterator[Client]:
    with Client(fake.target, "secret") as connected:
        yield connected


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the contexts of whoever runs it."""
    for name in ("TARGET", "TOKEN", "CONTEXT", "CA_CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"):
        monkeypatch.delenv(f"MODELYARD_{name}", raising=False)
    monkeypatch.setenv("MODELYARD_CACHE", str(tmp_path / "home" / "cache"))
    folder = tmp_path / "home"
    monkeypatch.setenv("MODELYARD_HOME", str(folder))
    return folder
