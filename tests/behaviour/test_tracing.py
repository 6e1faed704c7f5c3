"""One call is one trace: client, Envoy, service, other services, SQL; and client, Envoy, replica."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from modelyard.types import LoggingPolicy
from tests.framework.deployed import ROWS, deployed
from tests.framework.otlp import Collector, Span, collector
from tests.framework.stack import Processes
from tests.framework.waiting import eventually


@pytest.fixture(scope="module")
def collecting() -> Iterator[Collector]:
    with collector() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where logs of predictions go."""
    return tmp_path_factory.mktemp("predictions")


@pytest.fixture(scope="module")
def traced(collecting: Collector, files: Path) -> Iterator[Processes]:
    """A suite whose processes all send their spans to the collector."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODELYARD_OTLP_ENDPOINT", collecting.address)
        patch.setenv("MODELYARD_PREDICTION_LOGS", files.as_uri())
        patch.setenv("MODELYARD_PREDICTION_LOGS_SECONDS", "0")
        with Processes.start() as stack:
            yield stack


@pytest.fixture(scope="module", autouse=True)
def tracing_client() -> None:
    """Spans of the client itself begin the traces; they are kept by nobody."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())


def chain(spans: list[Span], leaf: Span) -> list[str]:
    """The services from the outermost span to this one."""
    by_id = {span.span_id: span for span in spans}
    services = [leaf.service]
    while leaf.parent_id in by_id:
        leaf = by_id[leaf.parent_id]
        services.append(leaf.service)
    return services[::-1]


async def test_a_catalog_call_is_one_trace_down_to_its_sql(traced: Processes, collecting: Collector) -> None:
    async with traced.admin() as admin:
        with trace.get_tracer("test").start_as_current_span("story") as story:
            await admin.catalogs.create("traced")
        trace_id = f"{story.get_span_context().trace_id:032x}"

        async def arrived() -> bool:
            spans = collecting.trace(trace_id)
            statements = [span for span in spans if "INSERT" in span.name]
            return any(
                chain(spans, span) == ["modelyard-gateway", "modelyard-catalog", "modelyard-catalog"]
                for span in statements
            )

        await eventually(arrived)


async def test_a_prediction_is_one_trace_down_to_the_replica_and_its_logs(
    traced: Processes, collecting: Collector, files: Path
) -> None:
    async with traced.admin() as admin, deployed(traced) as endpoint:
        wanted = LoggingPolicy(access_log=True, predict_log_percent=100, otlp=True, parquet=True)
        await admin.deployments.update(endpoint.name, logging=wanted)

        async def written() -> bool:
            await admin.predict(endpoint.name, {"input": ROWS[:1]})
            return any([line async for line in admin.deployments.logs(endpoint.name, log="access")])

        await eventually(written)
        with trace.get_tracer("test").start_as_current_span("story") as story:
            await admin.predict(endpoint.name, {"input": ROWS[:1]})
        trace_id = f"{story.get_span_context().trace_id:032x}"

        async def arrived() -> bool:
            services = {span.service.removeprefix("modelyard-") for span in collecting.trace(trace_id)}
            return {"gateway", "replica"} <= services

        await eventually(arrived)

        async def logged() -> bool:
            scopes = [one for sent in collecting.logs for r in sent.resource_logs for one in r.scope_logs]
            events = [r.event_name for s in scopes for r in s.log_records if r.trace_id.hex() == trace_id]
            return {"modelyard.prediction", "modelyard.prediction.tensors"} <= set(events)

        await eventually(logged)

        async def kept() -> bool:
            found = [file for log in ("access", "predict") for file in (files / log).rglob("*.parquet")]
            tables = [pq.read_table(file, partitioning=None) for file in found]
            return sum(trace_id in table["trace_id"].to_pylist() for table in tables) == 2

        await eventually(kept)
