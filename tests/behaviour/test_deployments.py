"""Deployments that rest: what was asked for stays, nothing runs, and it comes back."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard import errors
from modelyard.types import DeploymentState
from tests.framework.deployed import ROWS, deployed
from tests.framework.stack import Processes
from tests.framework.waiting import eventually


async def test_a_deactivated_endpoint_runs_nothing_and_comes_back(processes: Processes) -> None:
    async with processes.admin() as admin, deployed(processes) as endpoint:
        await admin.deployments.deactivate(endpoint.name)
        resting = await admin.deployments.wait(endpoint.name, state=DeploymentState.INACTIVE, timeout=120)
        assert await admin.deployments.replicas(endpoint.name) == ()
        assert [status.model_version for status in resting.target_statuses] == [""]
        with pytest.raises(errors.DeploymentFailed, match="is INACTIVE"):
            await admin.deployments.wait(endpoint.name)
        with pytest.raises(errors.ModelyardError):
            await admin.predict(endpoint.name, {"input": ROWS[:1]})

        await admin.aliases.set(endpoint.name, {"champion": 2})  # followed while it rests
        changed = await admin.deployments.update(endpoint.name, replicas=2)
        assert changed.state is DeploymentState.INACTIVE
        await admin.deployments.activate(endpoint.name)
        active = await admin.deployments.wait(endpoint.name, timeout=120)
        assert [status.ready_replicas for status in active.target_statuses] == [2]

        async def second() -> bool:
            answer = await admin.predict(endpoint.name, {"input": ROWS[-1:]})
            return answer.model_version == 2

        await eventually(second)
        answer = await admin.predict(endpoint.name, {"input": ROWS[-1:]})
        assert np.array_equal(answer.output, endpoint.expected(2, ROWS[-1:]))
        told = {"inference.deployment.activated", "inference.deployment.deactivated"}

        async def audited() -> bool:
            entries = await admin.audit.list(resource_id=active.id).collect()
            return told <= {entry.event.type for entry in entries}

        await eventually(audited)
