"""What is reserved for a job is the ceiling of its worker, and all ceilings together stay within what is granted."""

import os
import random
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from fixtures import hostile, make
from imgsvc import testing
from imgsvc.access.tokens import Tokens
from imgsvc.imaging.limits import render_bytes
from imgsvc.imaging.recipe import Recipe
from imgsvc.jobs.lane_memory import RESERVE_EXTRA, LaneMemory
from imgsvc.jobs.lanes.messages import Outcome, Rendered, Task
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.jobs.retry import Failure
from imgsvc.jobs.table.model import Job
from imgsvc.service.app import create_app
from imgsvc.service.assembly import Doubles
from imgsvc.testing import InlineLane
from tests.conftest import Starter
from tests.imaging.test_damaged_pictures import task
from tests.support.rendered_paths import probe
from tests.support.speed import seconds

MEGABYTE = 1 << 20
TOTAL = 294 * MEGABYTE  # of the renders, with 512 MB and two lanes


async def a_job(start: Starter) -> Job:
    async with start() as s:
        s.state.jobs.queue.hold()
        job = await s.state.jobs.table.job((await s.upload(make.tiny())).json()["job_id"])
        assert job
        return job


async def test_ceilings_together_stay_within_the_budget(start: Starter) -> None:
    chance, job = random.Random(5), await a_job(start)
    memory, held = LaneMemory(TOTAL), []
    for _ in range(2000):
        estimate = chance.randrange(16 * MEGABYTE, TOTAL + 1)
        if not memory.running or estimate <= memory.largest:
            held.append(memory.reserve(with_estimate(job, estimate), "renders"))
            assert held[-1] >= estimate
        elif held:
            memory.release(held.pop(chance.randrange(len(held))))
        assert sum(held) == memory.used <= TOTAL
        assert memory.running == len(held)


def with_estimate(job: Job, estimate: int) -> Job:
    return replace(job, render_bytes=estimate)


async def test_a_job_has_room_beyond_its_estimate_where_there_is_any(start: Starter) -> None:
    job = await a_job(start)
    assert LaneMemory(TOTAL).reserve(with_estimate(job, 100 * MEGABYTE), "renders") == 110 * MEGABYTE + RESERVE_EXTRA
    assert LaneMemory(TOTAL).reserve(with_estimate(job, TOTAL), "renders") == TOTAL
    assert (
        LaneMemory(TOTAL).reserve(with_estimate(job, 2 * TOTAL), "renders") == 2 * TOTAL
    )  # accepted with a larger budget


class Noting(InlineLane):
    """Keeps the tasks that it was given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.tasks: list[Task] = []

    async def run(self, task: Task) -> Outcome:
        self.tasks.append(task)
        return await super().run(task)


async def test_the_ceiling_is_what_was_reserved(tmp_path: Path) -> None:
    settings, lanes = testing.settings_in(tmp_path), (Noting("preview"), Noting("render"))
    app = create_app(settings, Doubles(lanes=lanes))
    client = testing.Client(httpx.ASGITransport(app=app), Tokens.of(settings))
    async with app.router.lifespan_context(app), client:
        job_id = (await client.upload(make.jpeg(640, 480))).json()["job_id"]
        await client.ready(job_id)
        job = await app.state.service.jobs.table.job(job_id)
    ceilings = [lane.tasks[0].memory_ceiling for lane in lanes]
    assert ceilings == [int(estimate * 1.1) + RESERVE_EXTRA for estimate in (job.preview_bytes, job.render_bytes)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane() -> AsyncIterator[ProcessLane]:
    one = ProcessLane("preview", nice=0, jobs_per_process=100)
    await one.start()
    yield one
    await one.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("size", [64, 1000])
async def test_texts_are_not_in_memory(tmp_path: Path, lane: ProcessLane, size: int) -> None:
    """62 texts of four megabytes each: the picture is rendered within what its size is admitted with."""
    given = task(tmp_path, hostile.texts(size, size))
    header = probe(Path(given.source), given.mime, max_pixels=50_000_000)
    estimate = render_bytes(header, Recipe.from_json(given.recipe))
    assert estimate < 32 * MEGABYTE
    assert isinstance(await lane.run(replace(given, memory_ceiling=estimate)), Rendered)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_preview_is_ended_at_its_limit_and_the_next_begins(tmp_path: Path, lane: ProcessLane) -> None:
    given = replace(task(tmp_path, make.encoded(make.quadrants(), "PNG")), kind="preview", time_limit=0.2)
    await lane.start()
    assert lane.pid
    restarts = lane.restarts
    os.kill(lane.pid, signal.SIGSTOP)  # a step that never ends
    began = time.monotonic()
    outcome = await lane.run(given)
    assert isinstance(outcome, Failure) and (outcome.code, outcome.death) == ("timeout", False)
    assert time.monotonic() - began < seconds(1.5)
    assert isinstance(await lane.run(replace(given, time_limit=60)), Rendered)
    assert lane.restarts == restarts + 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_worker_gives_its_memory_back(tmp_path: Path, lane: ProcessLane) -> None:
    """What the allocator keeps of one picture would come on top of the next one's ceiling."""
    given = task(tmp_path, make.encoded(make.photo(1400, 1050).convert("RGBA"), "PNG", compress_level=1))
    assert isinstance(await lane.run(given), Rendered)
    first = resident(lane.pid)
    for _ in range(5):
        assert isinstance(await lane.run(given), Rendered)
    assert resident(lane.pid) < first + 8 * MEGABYTE


def resident(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
