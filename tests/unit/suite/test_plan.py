"""What the processes of a suite are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelyard_suite import plan
from modelyard_suite.home import Home


@pytest.mark.parametrize(
    ("port", "listens"), [(0, [""] * 5), (9400, [f"127.0.0.1:{9400 + n}" for n in range(5)])]
)
def test_services_and_the_gateway_can_be_scraped_each_on_its_port(
    tmp_path: Path, port: int, listens: list[str]
) -> None:
    _, services, (agent, _) = plan.stages(Home(tmp_path), plan.Options(metrics_port=port))
    assert [service.name for service in services] == ["governance", "catalog", "artifact", "inference"]
    scraped = [*services, agent]
    assert [process.environment["MODELYARD_METRICS_LISTEN"] for process in scraped] == listens
    told = plan.metrics_addresses(plan.Options(metrics_port=port))
    assert list(told.values()) == [listen for listen in listens if listen]
