"""What a lost task means for its job: another run and no attempt, unless its machine was lost each time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx
import pytest

from fixtures import make
from imgsvc import testing
from imgsvc.access.tokens import Tokens
from imgsvc.jobs.lanes.messages import Lost, Outcome, Task
from imgsvc.jobs.retry import MAX_STARTS
from imgsvc.service.app import create_app
from imgsvc.service.assembly import Doubles
from imgsvc.testing import Client, InlineLane
from tests.support.speed import seconds


class LosingLane(InlineLane):
    """Loses its first tasks."""

    def __init__(self, times: int, *, begun: bool) -> None:
        super().__init__("render")
        self.left, self.begun, self.runs = times, begun, 0

    async def run(self, task: Task) -> Outcome:
        self.runs += 1
        if self.left:
            self.left -= 1
            return Lost("the machine has gone", begun=self.begun)
        return await super().run(task)


@asynccontextmanager
async def served(folder: Path, lane: LosingLane) -> AsyncIterator[Client]:
    settings = testing.settings_in(folder)
    app = create_app(settings, Doubles(lanes=(InlineLane("preview"), lane)))
    async with (
        app.router.lifespan_context(app),
        Client(httpx.ASGITransport(app=app), Tokens.of(settings)) as client,
    ):
        yield client


@pytest.mark.parametrize(("times", "begun"), [(1, False), (25, False), (MAX_STARTS - 1, True)])
async def test_lost_task_is_done_again_and_counts_as_no_attempt(tmp_path: Path, times: int, begun: bool) -> None:
    lane = LosingLane(times, begun=begun)
    async with served(tmp_path, lane) as client:
        receipt = (await client.upload(make.jpeg(320, 200))).json()
        with anyio.fail_after(seconds(30)):
            job = await client.ready(receipt["job_id"])
    assert (job["attempts"], lane.runs) == (0, times + 1)


async def test_photo_whose_machine_is_lost_each_time_fails_and_can_be_retried(tmp_path: Path) -> None:
    lane = LosingLane(100, begun=True)
    async with served(tmp_path, lane) as client:
        receipt = (await client.upload(make.jpeg(320, 200))).json()
        with anyio.fail_after(seconds(30)):
            while (job := (await client.get(receipt["status_url"])).json())["status"] != "failed":
                await anyio.sleep(0.02)
    assert (job["error_code"], job["retryable"], job["attempts"], lane.runs) == ("interrupted", True, 0, MAX_STARTS)
