"""A suite whose artifacts move from the local folder to S3: one setting, and no way to lose them by forgetting it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from modelyard_suite import plan
from modelyard_suite.home import Home
from tests.framework import folders, s3
from tests.framework.cli import Cli

STORE = "s3://bucket/yard"


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="my-", dir=folders.SHORT, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def server() -> Iterator[s3.S3Server]:
    with s3.seaweedfs() as running:
        yield running


def test_from_the_local_folder_to_s3(
    place: Path, server: s3.S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    home, endpoint = Home(place / "suite"), {"MODELYARD_S3_ENDPOINT": server.endpoint}
    local = Cli(place, settings=endpoint)
    remote = Cli(place, settings={**endpoint, "MODELYARD_BLOBS": STORE})
    up = ("up", "--detach", "--listen", f"127.0.0.1:{plan.free_port()}")
    try:
        local.ok(*up)
        _log_iris(local, place, 1)
        assert "same place" in remote.refused("artifacts", "migrate", "--to", STORE)
        local.ok("artifacts", "migrate", "--to", STORE)
        local.ok("down")
        assert "nothing runs on" in local.refused("artifacts", "migrate", "--to", STORE)

        assert "note:" not in remote.ok(*up).err  # takes both settings
        home.blobs.rename(place / "away")
        _download(remote, place / "from-s3", "1")
        _log_iris(remote, place, 2)
        remote.ok("down")

        (place / "away").rename(home.blobs)
        told = " ".join(local.refused(*up).split())  # its user forgot the setting
        assert "everything was moved from this blob store to another" in told
        remote.ok(*up)
        _download(remote, place / "again", "2")
        assert list((home.blobs / "blobs").rglob("*/*"))  # a move leaves what was there
    finally:
        local.run("down")


def _log_iris(cli: Cli, place: Path, number: int) -> None:
    rows, labels = load_iris(return_X_y=True)
    skops.io.dump(LogisticRegression(max_iter=500 + number).fit(rows, labels), place / "model.skops")
    (place / "rows.csv").write_text("5.1,3.5,1.4,0.2\n")
    if number == 1:
        cli.ok("catalogs", "create", "prod")
        cli.ok("schemas", "create", "prod.ml")
    cli.ok("log", str(place / "model.skops"), "prod.ml.iris", "--example", str(place / "rows.csv"))


def _download(cli: Cli, target: Path, number: str) -> None:
    shutil.rmtree(cli.home / "cache", ignore_errors=True)  # else it would not be fetched at all
    cli.ok("artifacts", "download", f"prod.ml.iris/{number}", str(target))
    assert [path.name for path in target.iterdir()] == ["model.skops"]
