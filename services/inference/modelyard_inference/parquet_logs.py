"""Logs of predictions as Parquet files, in a folder or an S3 bucket, partitioned as Hive does it.

    <access | predict>/deployment=<name>/day=<YYYY-MM-DD>/<replica>-<number of the first line>.parquet

A file is whole or not there. Lines that come again make a file of the same name with at least the same content, so nothing is in it twice.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from modelyard_inference.log_files import ACCESS, PREDICT, Line
from modelyard_inference.log_policy import PARQUET
from modelyard_inference.log_shipping import Source, number_of, trace_of

_CONNECT_SECONDS: Final = 5.0
_REQUEST_SECONDS: Final = 20.0
_ATTEMPTS: Final = 2
_MAX_DAYS: Final = 31
_COLUMNS: Final[Mapping[str, Mapping[str, type]]] = {
    ACCESS: {"method": str, "rows": int, "milliseconds": float, "reason": str, "code": str},
    PREDICT: {"method": str, "id": str, "inputs": str, "outputs": str},
}
"""Columns of each log beside those that both have; tensors are JSON, as in the log itself."""


class AddressUnusable(Exception):
    """No files can be kept at an address; the message says what to write or to install."""


class ParquetLogs:
    """Writes Parquet files.

    Args:
        address: file:///folder or s3://bucket/prefix.
        endpoint: address of the S3 server; empty: AWS. Credentials come the usual AWS way.

    Raises:
        AddressUnusable: the address is malformed, or the package that writes such files is missing.
    """

    name = PARQUET

    def __init__(self, address: str, endpoint: str = "") -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise AddressUnusable(
                "Parquet files are written by the package pyarrow: pip install 'modelyard[parquet]'"
            ) from error
        self._pa, self._pq = pa, pq
        self._put = _store(address, endpoint)
        self._schemas = {log: self._schema(log) for log in _COLUMNS}

    async def write(self, source: Source, lines: Sequence[Line]) -> None:
        """See `Destination.write`."""
        await asyncio.to_thread(self._write, source, lines)

    async def close(self) -> None:
        """See `Destination.close`: nothing is."""

    def _write(self, source: Source, lines: Sequence[Line]) -> None:
        by_day: dict[date, list[Line]] = defaultdict(list)
        for line in lines:
            if line.time:
                by_day[line.time.astimezone(UTC).date()].append(line)
        if len(by_day) > _MAX_DAYS:
            raise ValueError(f"lines of {len(by_day)} days")  # each would be a file
        for day, of_day in by_day.items():
            sink = self._pa.BufferOutputStream()
            self._pq.write_table(self._table(source, of_day), sink, compression="zstd")
            folder = f"{source.log}/deployment={source.deployment}/day={day.isoformat()}"
            self._put(f"{folder}/{source.replica}-{number_of(of_day[0])}.parquet", sink.getvalue())

    def _schema(self, log: str) -> Any:
        pa = self._pa
        kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
        return pa.schema(
            [
                ("time", pa.timestamp("us", tz="UTC")),
                ("request_id", pa.string()),
                ("trace_id", pa.string()),
                ("model_version", pa.string()),
                ("replica", pa.string()),
                ("shadow", pa.bool_()),
                ("number", pa.int64()),
                ("outcome", pa.string()),
                *((name, kinds[kind]) for name, kind in _COLUMNS[log].items()),
            ]
        )

    def _table(self, source: Source, lines: Sequence[Line]) -> Any:
        rows = [
            {
                "time": line.time,
                "request_id": next(iter(line.request_ids), None),
                "trace_id": trace_of(line)[0] or None,
                "model_version": source.model_version,
                "replica": source.replica,
                "shadow": source.shadow,
                "number": number_of(line) or None,
                "outcome": line.message,
                **{name: _value(line, name, kind) for name, kind in _COLUMNS[source.log].items()},
            }
            for line in lines
        ]
        return self._pa.Table.from_pylist(rows, schema=self._schemas[source.log])


def _value(line: Line, name: str, kind: type) -> Any:
    given = line.attributes.get(name)
    return None if given is None else kind(given)


def _store(address: str, endpoint: str) -> Callable[[str, Any], None]:
    """Return what puts a file at a path below an address."""
    parts = urlsplit(address)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        root = Path(unquote(parts.path))
        return lambda path, data: _put_on_disk(root, path, data)
    if parts.scheme != "s3" or not parts.netloc:
        raise AddressUnusable(f"{address}: write file:///absolute/path or s3://bucket/prefix")
    from pyarrow import fs

    server = urlsplit(endpoint)
    if endpoint and not (server.scheme in ("http", "https") and server.netloc):
        raise AddressUnusable(f"{endpoint}: write http://host:port or https://host:port")
    if endpoint:
        # Not every S3 server knows the checksum trailers that newer clients send; pyarrow is told so in no other way.
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "WHEN_REQUIRED")
    bucket = fs.S3FileSystem(
        allow_delayed_open=True,  # one call for what is small
        endpoint_override=server.netloc or None,
        scheme=server.scheme or "https",
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
    prefix = "/".join(filter(None, (parts.netloc, parts.path.strip("/"))))

    def put(path: str, data: Any) -> None:
        with bucket.open_output_stream(f"{prefix}/{path}") as stream:  # there when it is closed
            stream.write(data)

    return put


def _put_on_disk(root: Path, name: str, data: Any) -> None:
    """Write a file for this user alone, all at once."""
    path = root / name
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in reversed(path.relative_to(root).parents):
        (root / folder).mkdir(mode=0o700, exist_ok=True)
    # Readers of such folders pass over names that begin with a dot.
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
