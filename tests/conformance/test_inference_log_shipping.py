"""Logs of predictions at a collector and in Parquet files: complete, once, and never in anybody's way."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from structlog.testing import capture_logs

from modelyard.api.inference.v1.log_pb2 import LoggingPolicy
from modelyard_inference import log_files, log_marks, log_shipping
from modelyard_inference.launchers.local import LocalLauncher
from modelyard_inference.log_days import days_at
from modelyard_inference.log_files import Line
from modelyard_inference.log_retention import LogRetention
from modelyard_inference.log_shipping import LogShipping, Source
from modelyard_inference.otlp_logs import OtlpLogs
from modelyard_inference.parquet_logs import AddressUnusable, ParquetLogs
from modelyard_kit.errors import DomainError
from tests.conformance.test_inference_logs import Logs, logs
from tests.conformance.test_inference_service import wire
from tests.framework import s3
from tests.framework.otlp import Collector, attributes, collector

__all__ = ["logs", "wire"]

NAME = "prod.ml.iris"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
ACCESS = {"method": "predict", "rows": 3, "milliseconds": 1.5}
PREDICT = {
    "method": "predict",
    "id": "mine",
    "inputs": {"x": {"shape": [1]}},
    "outputs": {"y": {"shape": [1]}},
}
LONG = 1e9


class Taker:
    """A destination that remembers, and refuses what it is told to."""

    name = "otlp"

    def __init__(self) -> None:
        self.taken: list[tuple[Source, list[Line]]] = []
        self.error: Exception | None = None

    async def write(self, source: Source, lines: Sequence[Line]) -> None:
        if self.error:
            raise self.error
        self.taken.append((source, list(lines)))

    async def close(self) -> None:
        self.error = RuntimeError("closed")

    @property
    def numbers(self) -> list[int]:
        return [log_shipping.number_of(line) for _, lines in self.taken for line in lines]


class Yard:
    """A deployment whose logs are carried away."""

    def __init__(self, logs: Logs) -> None:
        self.logs = logs
        self.launcher = LocalLauncher(logs.wire.replicas.parent, ())
        self.now = 0.0

    def shipping(self, destination: Any, patience: float = LONG) -> LogShipping:
        return LogShipping(
            self.logs.wire.db, self.launcher, destination, patience=patience, monotonic=lambda: self.now
        )

    async def want(self, **policy: bool) -> None:
        self.logs.wire.log_destinations.update(policy)
        await self.logs.update(LoggingPolicy(access_log=True, predict_log_percent=100, **policy))

    def access(self, replica: str, *numbers: int, day: int = 0, **more: Any) -> None:
        for number in numbers:
            facts = {**ACCESS, "logger": "access", "number": number, **more}
            self.logs.write(replica, day * 86_400 + number, "answered", "access", **facts)


@pytest.fixture
async def yard(logs: Logs) -> Yard:
    return Yard(logs)


@pytest.fixture
def collecting() -> Iterator[Collector]:
    with collector() as found:
        yield found


async def test_parquet_files_hold_each_line_once_by_deployment_and_day(yard: Yard, tmp_path: Path) -> None:
    await yard.want(parquet=True)
    first, second = [await yard.logs.replica() for _ in range(2)]
    destination = ParquetLogs(tmp_path.as_uri())
    shipping = yard.shipping(destination, patience=60)
    yard.access(first, 1, 2, request_ids=["r1"], traceparent=TRACE)
    yard.access(second, 1)
    yard.access(second, 2, day=1)
    yard.logs.write(first, 3, "prediction", "predict", number=1, **PREDICT)
    await shipping.look()
    assert list(tmp_path.iterdir()) == []  # lines wait for company
    yard.now = 60
    await shipping.look()
    yard.access(first, 3)
    await shipping.look()
    yard.now = 120
    await shipping.look()

    table = pd.read_parquet(tmp_path / "access").sort_values(["replica", "number"], ignore_index=True)
    assert sorted(zip(table.replica, table.number, strict=True)) == sorted(
        [(first, 1), (first, 2), (first, 3), (second, 1), (second, 2)]
    )
    assert set(table.deployment) == {NAME}
    assert sorted(map(str, set(table.day))) == ["2026-01-02", "2026-01-03"]
    row = table[(table.replica == first) & (table.number == 1)].iloc[0]
    assert row.time == NOON + timedelta(seconds=1)
    assert (row.request_id, row.trace_id, row.outcome, row.method) == ("r1", "a" * 32, "answered", "predict")
    assert (row.model_version, row.rows, row.milliseconds, row.shadow) == (f"{NAME}/1", 3, 1.5, False)
    (predicted,) = pd.read_parquet(tmp_path / "predict").to_dict("records")
    assert json.loads(predicted["inputs"]) == PREDICT["inputs"]
    assert (predicted["id"], predicted["replica"]) == ("mine", first)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


async def test_what_was_written_but_not_noted_is_not_twice_in_parquet_files(
    yard: Yard, tmp_path: Path
) -> None:
    class Forgetful(ParquetLogs):
        async def write(self, source: Source, lines: Sequence[Line]) -> None:
            await super().write(source, lines)
            raise OSError("the answer was lost")

    await yard.want(parquet=True)
    replica = await yard.logs.replica()
    yard.access(replica, 1, 2)
    await yard.shipping(Forgetful(tmp_path.as_uri())).look(everything=True)
    yard.access(replica, 3)
    await yard.shipping(ParquetLogs(tmp_path.as_uri())).look(everything=True)  # another life
    assert sorted(pq.read_table(tmp_path)["number"].to_pylist()) == [1, 2, 3]


async def test_parquet_files_of_days_that_are_not_kept_any_more_go(yard: Yard, tmp_path: Path) -> None:
    await yard.want(parquet=True)
    replica = await yard.logs.replica()
    files, kept = ParquetLogs(tmp_path.as_uri()), days_at(tmp_path.as_uri())
    for day in range(3):
        yard.access(replica, day + 1, day=day)
    yard.logs.write(replica, 3, "prediction", "predict", number=1, **PREDICT)
    await yard.shipping(files).look(everything=True)
    mine = tmp_path / "access" / f"deployment={NAME}" / "day=last" / "x.parquet"
    mine.parent.mkdir()
    mine.touch()

    def left() -> list[str]:
        return sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*/day=2026*"))

    retention = LogRetention(kept, 1, lambda: NOON + timedelta(days=1))
    await retention.look()
    assert len(left()) == 4  # the day before is kept
    with capture_logs() as told:
        await LogRetention(kept, 1, lambda: NOON + timedelta(days=3)).look()
        await LogRetention(kept, 1, lambda: NOON + timedelta(days=3)).look()
    assert left() == [f"access/deployment={NAME}/day=2026-01-04"]
    assert mine.exists()
    assert [(one["event"], one["days"]) for one in told] == [("prediction_logs_removed", 3)]
    yard.access(replica, 4)  # late, of a day that is gone: there again until the next look
    await yard.shipping(files).look(everything=True)
    assert len(left()) == 2


async def test_what_cannot_be_removed_is_told_and_tried_again() -> None:
    class Stuck:
        async def remove_before(self, first: date) -> int:
            raise OSError(f"{first} is busy")

    with capture_logs() as told:
        await LogRetention(Stuck(), 30, lambda: NOON).look()
    assert [(one["event"], one["error"]) for one in told] == [
        ("prediction_logs_not_removed", "2025-12-03 is busy")
    ]


@pytest.mark.parametrize("server", [s3.moto, s3.rclone])
async def test_parquet_files_go_to_s3_too(
    server: Callable[[], Any], yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    await yard.want(parquet=True)
    replica = await yard.logs.replica()
    yard.access(replica, 1, 2)
    with server() as running:
        shipping = yard.shipping(ParquetLogs("s3://bucket/logs/of/predictions", running.endpoint))
        await shipping.look(everything=True)
        host = running.endpoint.removeprefix("http://")
        bucket = fs.S3FileSystem(endpoint_override=host, scheme="http")
        table = pq.read_table("bucket/logs/of/predictions/access", filesystem=bucket)
        assert table["number"].to_pylist() == [1, 2]
        assert table["deployment"].to_pylist() == [NAME] * 2
        kept = days_at("s3://bucket/logs/of/predictions", running.endpoint)
        assert [await kept.remove_before(date(2026, 1, day)) for day in (2, 3, 3)] == [0, 1, 0]
        left = bucket.get_file_info(fs.FileSelector("bucket/logs", recursive=True, allow_not_found=True))
        assert [each.path for each in left if each.is_file] == []
    yard.access(replica, 3)
    with capture_logs() as told:
        await shipping.look(everything=True)  # the server is gone
    assert [one["event"] for one in told] == ["prediction_logs_not_taken"]
    with pytest.raises(OSError, match="connect"):
        await kept.remove_before(date(2026, 1, 3))


async def test_a_collector_gets_records_of_the_replica(yard: Yard, collecting: Collector) -> None:
    await yard.want(otlp=True)
    replica = await yard.logs.replica()
    shipping = yard.shipping(OtlpLogs(collecting.address), patience=0)
    yard.access(replica, 1, request_ids=["r1"], traceparent=TRACE)
    yard.logs.write(replica, 2, "refused", "access", number=2, reason="QUEUE_FULL", code="RESOURCE_EXHAUSTED")
    yard.logs.write(replica, 3, "prediction", "predict", number=1, **PREDICT)
    await shipping.look()
    access, predicted = collecting.logs
    (sent,) = access.resource_logs
    assert attributes(sent.resource.attributes) == {
        "service.name": "modelyard-replica",
        "service.instance.id": replica,
        "modelyard.deployment": NAME,
        "modelyard.model_version": f"{NAME}/1",
        "modelyard.shadow": False,
    }
    answered, refused = sent.scope_logs[0].log_records
    assert (answered.event_name, answered.body.string_value) == ("modelyard.prediction", "answered")
    assert answered.time_unix_nano == int((NOON + timedelta(seconds=1)).timestamp()) * 10**9
    assert (answered.trace_id.hex(), answered.span_id.hex()) == ("a" * 32, "b" * 16)
    assert attributes(answered.attributes) == {
        "modelyard.method": "predict",
        "modelyard.rows": 3,
        "modelyard.duration_ms": 1.5,
        "modelyard.log.number": 1,
        "modelyard.request_id": "r1",
    }
    assert attributes(refused.attributes)["error.type"] == "QUEUE_FULL"
    tensors = predicted.resource_logs[0].scope_logs[0].log_records[0]
    assert json.loads(attributes(tensors.attributes)["modelyard.inputs"]) == PREDICT["inputs"]

    collecting.refuses = grpc.StatusCode.UNAVAILABLE
    yard.access(replica, 3)
    with capture_logs() as told:
        await shipping.look()
        await shipping.look()
    assert [one["event"] for one in told] == ["prediction_logs_not_taken"]  # said once
    collecting.refuses = None
    yard.access(replica, 4)
    await shipping.look()
    (later,) = collecting.logs[2].resource_logs[0].scope_logs
    assert [attributes(r.attributes)["modelyard.log.number"] for r in later.log_records] == [3, 4]
    await shipping.close()


async def test_large_lines_go_to_a_collector_in_requests_that_it_takes(
    yard: Yard, collecting: Collector
) -> None:
    destination = OtlpLogs(collecting.address)
    line = Line("prediction", NOON, attributes={"inputs": "x" * 16_000})
    await destination.write(Source(NAME, f"{NAME}/1", "r", False, "predict"), [line] * 200)
    sizes = [request.ByteSize() for request in collecting.logs]
    assert len(sizes) > 1
    assert max(sizes) < 2 * 2**20
    records = [len(request.resource_logs[0].scope_logs[0].log_records) for request in collecting.logs]
    assert sum(records) == 200
    await destination.close()


async def test_what_the_files_do_not_hold_any_more_is_counted(yard: Yard) -> None:
    await yard.want(otlp=True)
    replica = await yard.logs.replica()
    taker = Taker()
    shipping = yard.shipping(taker, patience=0)
    yard.access(replica, 1)
    await shipping.look()
    for number in range(2, 10):  # all files are full, and four of them are gone
        log_files.rotate(yard.logs.wire.replicas / replica / "access")
        yard.access(replica, number)
    with capture_logs() as told:
        await shipping.look()
    assert taker.numbers == [1, 6, 7, 8, 9]
    assert [(one["event"], one["lines"]) for one in told] == [("prediction_logs_dropped", 4)]


async def test_lines_that_were_not_meant_for_a_destination_are_not_missed_there(yard: Yard) -> None:
    await yard.want(otlp=True)
    replica = await yard.logs.replica()
    taker = Taker()
    shipping = yard.shipping(taker, patience=0)
    yard.access(replica, 1)
    await shipping.look()
    await yard.want()
    yard.access(replica, 2)
    await shipping.look()
    assert taker.numbers == [1]
    for number in range(3, 10):
        log_files.rotate(yard.logs.wire.replicas / replica / "access")
        yard.access(replica, number)
    await yard.want(otlp=True)
    with capture_logs() as told:
        await shipping.look()
    assert taker.numbers == [1, 6, 7, 8, 9]
    assert told == []


async def test_little_is_held_while_a_destination_takes_nothing(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_shipping, "MAX_LINES", 100)
    monkeypatch.setattr(log_files, "_AT_ONCE", 4096)
    await yard.want(otlp=True)
    replica = await yard.logs.replica()
    taker = Taker()
    taker.error = OSError("away")
    shipping = yard.shipping(taker, patience=0)
    yard.access(replica, *range(1, 1001))
    with capture_logs():
        for _ in range(3):
            await shipping.look()
    held = sum(len(batch.lines) for batch in shipping._batches.values())
    assert 100 <= held < 200
    taker.error = None
    await shipping.look()
    assert taker.numbers == list(range(1, 1001))
    assert max(len(lines) for _, lines in taker.taken) < 200


async def test_a_replica_that_goes_leaves_nothing_behind(yard: Yard) -> None:
    await yard.want(otlp=True)
    first, second = [await yard.logs.replica() for _ in range(2)]
    taker = Taker()
    shipping = yard.shipping(taker)
    yard.access(first, 1, 2)
    yard.access(second, 1, 2, 3)
    await shipping.look()
    assert taker.taken == []
    await shipping.flush(first)
    assert taker.numbers == [1, 2]
    taker.error = OSError("away")
    with capture_logs() as told:
        await shipping.flush(second)
    assert [(one["event"], one.get("lines")) for one in told] == [
        ("prediction_logs_not_taken", None),
        ("prediction_logs_dropped", 3),
    ]


async def test_the_next_life_goes_on_where_the_last_one_ended(yard: Yard) -> None:
    await yard.want(otlp=True)
    replica = await yard.logs.replica()
    taker, later = Taker(), Taker()
    shipping = yard.shipping(taker)
    yard.access(replica, 1, 2)
    await shipping.close()
    yard.access(replica, 3)
    await yard.shipping(later, patience=0).look()
    assert (taker.numbers, later.numbers) == ([1, 2], [3])
    db = yard.logs.wire.db
    (writer,) = await db.read(lambda connection: log_marks.writers(connection, "otlp"))
    assert writer.marks["access"].next_number == 4
    await db.in_tx(lambda connection: yard.logs.wire.store.delete_replica(connection, replica))
    await yard.shipping(later).look()  # its marks went with it


@pytest.mark.parametrize("make", ["otlp", "parquet"])
async def test_what_a_model_writes_into_its_log_harms_only_itself(
    make: str, yard: Yard, collecting: Collector, tmp_path: Path
) -> None:
    await yard.want(**{make: True})
    bad, good = [await yard.logs.replica() for _ in range(2)]
    destination = OtlpLogs(collecting.address) if make == "otlp" else ParquetLogs(tmp_path.as_uri())
    shipping = yard.shipping(destination, patience=0)
    yard.access(bad, 1, rows="many")
    yard.access(good, 1)
    with (yard.logs.wire.replicas / bad / "predict").open("wb") as file:
        file.write(
            b"\xff\xfe no line\n"
            + json.dumps({"event": "\ud800", "timestamp": "0001-01-01T00:00:00+14:00"}).encode()
            + b"\n"
        )
    with capture_logs() as told:
        await shipping.look()
        await shipping.look()
    assert {one["replica"] for one in told} == {bad}
    assert {one["event"] for one in told} == {"prediction_logs_unreadable", "prediction_logs_dropped"}
    if make == "otlp":
        assert len(collecting.logs) == 1
    else:
        assert pq.read_table(tmp_path / "access")["replica"].to_pylist() == [good]
    await shipping.close()


async def test_a_place_that_the_installation_does_not_have_is_refused(yard: Yard) -> None:
    yard.logs.wire.log_destinations.add("otlp")
    with pytest.raises(DomainError, match="MODELYARD_PREDICTION_LOGS") as refused:
        await yard.logs.update(LoggingPolicy(access_log=True, otlp=True, parquet=True))
    assert refused.value.violations[0].field == "deployment.logging.parquet"
    with pytest.raises(DomainError) as refused:
        await yard.logs.update(LoggingPolicy(otlp=True))
    assert refused.value.violations[0].field == "deployment.logging.otlp"
    changed = await yard.logs.update(LoggingPolicy(access_log=True, otlp=True))
    assert changed.deployment.logging == LoggingPolicy(access_log=True, otlp=True)


@pytest.mark.parametrize("address", ["", "/folder", "file://host/folder", "s3://", "http://host/folder"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(AddressUnusable, match="write file:///absolute/path or s3://bucket/prefix"):
        ParquetLogs(address)
    with pytest.raises(AddressUnusable, match="write http://host:port"):
        ParquetLogs("s3://bucket", "host:9000")
