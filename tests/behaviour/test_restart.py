"""What was deployed before `down` answers again after `up`, by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from modelyard import errors
from modelyard.aio import AsyncClient
from modelyard_suite import plan, suite
from modelyard_suite.home import Home
from tests.framework.deployed import ROWS, deployed
from tests.framework.stack import Processes, short_folder
from tests.framework.waiting import eventually


def answers(client: AsyncClient, name: str) -> Callable[[], Awaitable[bool]]:
    async def predict() -> bool:
        try:
            return (await client.predict(name, ROWS[:1])).model_version == 1
        except (errors.Unavailable, errors.NotFound):
            return False

    return predict


async def test_deployments_come_back_with_the_suite() -> None:
    with short_folder() as folder:
        stack = Processes(Home(folder / "suite"), f"127.0.0.1:{plan.free_port()}")
        options = plan.Options(listen=stack.target)
        suite.start_in_background(stack.home, options)
        try:
            async with stack.admin() as admin, deployed(stack) as endpoint:
                await eventually(answers(admin, endpoint.name))
                suite.stop(stack.home)
                assert suite.processes_of(stack.home) == []
                suite.start_in_background(stack.home, options)
                await eventually(answers(admin, endpoint.name), seconds=60)
        finally:
            suite.stop(stack.home)
