"""S3 servers for tests, all from PyPI, all processes with a real HTTP port on loopback.

They differ in what the store has to cope with: SeaweedFS checks the SHA-256 of what is put, rclone checks signatures but no SHA-256,
moto neither.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard_artifact.blobs.marks import MARK_NAME

KEY = "modelyardtestkey"
SECRET = "modelyardtestsecret"
BUCKET = "bucket"

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class S3Server:
    """A running server with the bucket `bucket`."""

    endpoint: str


@contextmanager
def moto() -> Iterator[S3Server]:
    """Run `moto_server`, in memory."""
    with tempfile.TemporaryDirectory(prefix="my-moto-") as folder:
        port = _free_port()
        command = [str(_script("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
        with _running(command, port, Path(folder)) as server:
            _make_bucket(server.endpoint)
            yield server


@contextmanager
def rclone() -> Iterator[S3Server]:
    """Run `rclone serve s3` over a temporary folder, whose sub-folders are the buckets."""
    with tempfile.TemporaryDirectory(prefix="my-rclone-") as folder:
        root = Path(folder) / "root"
        (root / BUCKET).mkdir(parents=True)
        port = _free_port()
        command = [str(_script("rclone")), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
        command += ["--auth-key", f"{KEY},{SECRET}", "--config", os.devnull, str(root)]
        with _running(command, port, Path(folder)) as server:
            yield server


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    """Run SeaweedFS, all of it in one process, on a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="my-weed-") as folder:
        root = Path(folder)
        (root / "data").mkdir()
        credentials = [{"accessKey": KEY, "secretKey": SECRET}]
        identity = {"name": "test", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
        (root / "identities").write_text(json.dumps({"identities": [identity]}))
        port = _free_port()
        ports = {"s3.port": port, "s3.port.grpc": _free_port(), "s3.port.iceberg": 0, "s3.port.lance": 0}
        ports |= {
            f"{part}.port{kind}": _free_port()
            for part in ("master", "volume", "filer")
            for kind in ("", ".grpc")
        }
        command = [
            str(_script("weed")),
            "-logtostderr",
            "server",
            "-s3",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-dir={root / 'data'}",
        ]
        command += [f"-s3.config={root / 'identities'}", "-master.telemetry=false"]
        command += [f"-{name}={number}" for name, number in ports.items()]
        try:
            # When asked to end it takes its time, and nothing of it is needed any more.
            with _running(command, port, root, end=signal.SIGKILL) as server:
                _make_bucket(server.endpoint)
                yield server
        finally:
            for number in ports.values():  # no setting has it put them elsewhere
                for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    socket_file.unlink()


@contextmanager
def _running(
    command: list[str], port: int, folder: Path, *, end: signal.Signals = signal.SIGTERM
) -> Iterator[S3Server]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not answer:\n{log.read_text()}")
            time.sleep(0.05)
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(end)
        process.wait(10)


def _make_bucket(endpoint: str) -> None:
    client = _client(endpoint)
    client.create_bucket(Bucket=BUCKET)
    client.close()


def _client(endpoint: str) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
    )


def _script(name: str) -> Path:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise RuntimeError(f"{name} is not installed: make install")
    return Path(found)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def leftovers(endpoint: str, prefix: str) -> list[str]:
    """Return every key below a prefix that is neither blob nor mark, and every multipart upload that was not completed."""
    client = _client(endpoint)
    answer = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    keys = [item["Key"] for item in answer.get("Contents", ())]
    try:
        uploads = client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", ())
    except client.exceptions.NoSuchUpload:  # how rclone says that there are none
        uploads = ()
    client.close()
    keys += [f"{each['Key']}?uploads" for each in uploads if each["Key"].startswith(prefix)]
    meant = (f"{prefix}blobs/", f"{prefix}{MARK_NAME}")
    return [key for key in keys if not key.startswith(meant) or key.endswith("?uploads")]


def blobs(endpoint: str, prefix: str) -> dict[str, bytes]:
    """Return the content of every blob below a prefix by its name."""
    client = _client(endpoint)
    answer = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}blobs/")
    keys = [item["Key"] for item in answer.get("Contents", ())]
    found = {key.rpartition("/")[2]: client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}
    client.close()
    return found
