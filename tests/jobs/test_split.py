"""One render on two idle lanes: one claim, one run, one row, and nothing is published before all parts are there."""

import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette

from fixtures import make
from imgsvc import testing
from imgsvc.access.tokens import Tokens
from imgsvc.jobs import settlement
from imgsvc.jobs.failures import CRASHED
from imgsvc.jobs.lanes.messages import Outcome, Rendered, Task
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.jobs.lanes.split import Loan, SplitLane
from imgsvc.jobs.retry import Failure
from imgsvc.jobs.trees import remove_tree
from imgsvc.service.app import create_app
from imgsvc.service.assembly import Doubles
from imgsvc.settings.jobs import Images
from tests.support.render_task import render_task
from tests.support.speed import seconds

Hook = Callable[[Task], Awaitable[Outcome]]
PHOTO = make.jpeg(1300, 900)
LARGEST, OTHERS = {"original"}, {"large", "medium"}


def made_by(task: Task) -> set[str]:
    """The variants that a part is to make, of those that the preview leaves."""
    return (LARGEST | OTHERS) - set(task.done)


class Part(testing.InlineLane):
    """A render lane that notes its tasks, and does first what a test wants."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.tasks: list[Task] = []
        self.first: Hook | None = None
        self.killed = anyio.Event()

    async def run(self, task: Task) -> Outcome:
        self.tasks.append(task)
        if self.first is not None:
            first, self.first = self.first, None
            if isinstance(found := await first(task), Failure):
                return found
        return await super().run(task)

    def kill(self) -> None:
        self.killed.set()


class Split:
    """A service with two render lanes."""

    def __init__(self, app: Starlette, client: testing.Client, lanes: tuple[Part, Part]) -> None:
        self.queue = app.state.service.jobs.queue
        self.table = app.state.service.jobs.table
        self.client, self.lanes = client, lanes

    @property
    def tasks(self) -> list[set[str]]:
        return [made_by(task) for lane in self.lanes for task in lane.tasks]

    @property
    def memory(self) -> Any:
        return next(side.memory for side in self.queue._sides if side.queue == "renders")

    async def upload(self, photo: bytes = PHOTO) -> str:
        accepted = await self.client.upload(photo)
        job_id: str = accepted.json()["job_id"]
        return job_id


@asynccontextmanager
async def split(folder: Path, **sections: Any) -> AsyncIterator[Split]:
    lanes = Part("render-1"), Part("render-2")
    settings = testing.settings_in(folder, jobs={"retry_delay_seconds": 0.05}, **sections)
    app = create_app(settings, Doubles(lanes=(testing.InlineLane("preview"), *lanes)))
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), testing.Client(transport, Tokens.of(settings)) as client:
        yield Split(app, client, lanes)


async def until(found: Callable[[], bool]) -> None:
    with anyio.fail_after(seconds(20)):
        while not found():
            await anyio.sleep(0.01)


def both_at_once(lanes: tuple[Part, Part]) -> None:
    """Each part waits until the other one has begun."""

    async def other_begun(_: Task) -> None:
        await until(lambda: all(lane.tasks for lane in lanes))

    for lane in lanes:
        lane.first = other_begun


async def test_parts_run_at_the_same_time_in_one_run(tmp_path: Path) -> None:
    async with split(tmp_path) as s:
        both_at_once(s.lanes)
        job_id = await s.upload()
        await s.client.ready(job_id)
        job = await s.table.job(job_id)
    assert sorted(s.tasks, key=len) == [LARGEST, OTHERS]
    assert (job.run, job.attempt_count) == (2, 0), "a preview and one render"
    assert set(job.paths) == {*LARGEST, *OTHERS, "thumbnail"}
    assert len({task.id for lane in s.lanes for task in lane.tasks}) == 2


async def test_a_render_begins_while_what_its_preview_left_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, in_time = threading.Event(), []

    def late(folder: Path) -> bool:
        in_time.append(begun.wait(seconds(5)))
        return remove_tree(folder)

    async def note(_: Task) -> None:
        begun.set()

    monkeypatch.setattr(settlement, "remove_tree", late)
    async with split(tmp_path) as s:
        for lane in s.lanes:
            lane.first = note
        await s.client.ready(await s.upload())
    assert in_time and all(in_time)


async def test_variants_are_those_of_one_lane(tmp_path: Path) -> None:
    digests = []
    for short_of_memory in (False, True):
        async with split(tmp_path / str(short_of_memory)) as s:
            if short_of_memory:
                s.memory.total = 60 << 20  # bytes: enough for one process of this picture
            job_id = await s.upload()
            await s.client.ready(job_id)
            job = await s.table.job(job_id)
        digests.append({name: made["sha256"] for name, made in job.measured["variants"].items()})
        assert len(s.tasks) == (1 if short_of_memory else 2)
    assert digests[0] == digests[1]


async def test_all_memory_is_reserved_before_the_first_part_begins(tmp_path: Path) -> None:
    reserved: list[tuple[int, int]] = []
    async with split(tmp_path) as s:

        async def look(task: Task) -> None:
            reserved.append((s.memory.used, 2 * task.memory_ceiling))

        for lane in s.lanes:
            lane.first = look
        await s.client.ready(await s.upload())
        await until(lambda: s.memory.used == s.memory.running == 0)
    assert reserved[0][0] == reserved[0][1]


async def test_nothing_is_published_before_all_parts_are_there(tmp_path: Path) -> None:
    async with split(tmp_path) as s:
        seen: list[list[str]] = []
        job_id = ""

        async def wait_for_the_largest(_: Task) -> None:
            await until(lambda: s.lanes[1].jobs_done + s.lanes[0].jobs_done == 1)
            job = (await s.client.get(f"/api/v1/images/jobs/{job_id}")).json()
            seen.append(job["ready"])

        hold = anyio.Event()

        async def held(task: Task) -> None:
            await hold.wait()
            if made_by(task) == OTHERS:
                await wait_for_the_largest(task)

        for lane in s.lanes:
            lane.first = held
        job_id = await s.upload()
        hold.set()
        await s.client.ready(job_id)
        stored = [path.name for path in (tmp_path / "storage").rglob("*.webp")]
    assert seen == [["thumbnail"]]
    assert len(stored) == 4


@pytest.mark.parametrize("dying", [0, 1])
async def test_death_of_a_part_is_one_death_and_ends_the_other(tmp_path: Path, dying: int) -> None:
    async with split(tmp_path) as s:

        async def die(_: Task) -> Failure:
            await until(lambda: all(lane.tasks for lane in s.lanes))
            return CRASHED

        async def be_killed(_: Task) -> Failure:
            await s.lanes[1 - dying].killed.wait()
            return CRASHED

        s.lanes[dying].first, s.lanes[1 - dying].first = die, be_killed
        job_id = await s.upload()
        with anyio.fail_after(seconds(20)):
            await s.client.ready(job_id)
        job = await s.table.job(job_id)
    assert (job.deaths, job.attempt_count) == (1, 1)
    assert len(s.tasks) == 3, "after a death a job runs alone, on one lane"
    assert s.tasks.count(LARGEST | OTHERS) == 1
    assert s.memory.used == s.memory.running == 0


async def test_deletion_ends_both_parts(tmp_path: Path) -> None:
    async with split(tmp_path) as s:

        async def be_killed(_: Task) -> Failure:
            await until(lambda: all(lane.killed.is_set() for lane in s.lanes))
            return CRASHED

        for lane in s.lanes:
            lane.first = be_killed
        accepted = (await s.client.upload(PHOTO)).json()
        await until(lambda: all(lane.tasks for lane in s.lanes))
        with anyio.fail_after(seconds(20)):
            answer = await s.client.delete(f"/api/v1/images/{accepted['image_id']}")
        assert answer.status_code in (200, 204), answer.text


async def test_lane_shows_what_it_works_on_and_takes_the_next_job_once_its_part_is_over(tmp_path: Path) -> None:
    async with split(tmp_path) as s:
        states: list[list[str | None]] = []

        async def look(task: Task) -> None:
            if made_by(task) == LARGEST:  # which goes on until the other lane has done the next job
                await until(lambda: all(lane.tasks for lane in s.lanes))
                states.append([state.job_id for state in s.queue.lanes()[1:]])
                await until(lambda: s.lanes[0].jobs_done + s.lanes[1].jobs_done == 2)

        for lane in s.lanes:
            lane.first = look
        first = await s.upload()
        await until(lambda: bool(states))
        second = await s.upload(make.jpeg(320, 200))
        for job_id in (first, second):
            await s.client.ready(job_id)
    assert states == [[first, first]]


async def test_small_picture_is_not_split(tmp_path: Path) -> None:
    async with split(tmp_path) as s:
        await s.client.ready(await s.upload(make.jpeg(640, 480)))
    assert s.tasks == [LARGEST | OTHERS]


async def test_nothing_is_split_while_others_wait(tmp_path: Path) -> None:
    async with split(tmp_path) as s:
        s.queue.hold()
        jobs = [await s.upload(make.jpeg(1300, 900, seed=seed)) for seed in range(3)]
        s.queue._stopping = False
        s.queue.wake()
        for job_id in jobs:
            await s.client.ready(job_id)
    assert s.tasks.count(LARGEST | OTHERS) >= 2


def digests(rendered: Rendered) -> dict[str, str]:
    return {made.name: made.sha256 for made in rendered.variants}


async def test_two_processes_make_what_one_makes(tmp_path: Path) -> None:
    task = render_task(tmp_path, PHOTO, Images().recipe)
    first, second = (ProcessLane(name, nice=0, jobs_per_process=10) for name in ("first", "second"))
    try:
        loan = Loan(1)
        found = await SplitLane(first, second, loan).run(task)
        assert loan.over.is_set()
        alone = await first.run(replace(task, id="job.2"))
    finally:
        await first.close()
        await second.close()
    assert isinstance(found, Rendered)
    assert isinstance(alone, Rendered)
    assert digests(found) == digests(alone)
    assert found.thumbhash == alone.thumbhash != ""
    assert (found.dominant_colour, found.width, found.frames) == (alone.dominant_colour, alone.width, alone.frames)
    assert hashlib.sha256((tmp_path / "made" / "original.webp").read_bytes()).hexdigest() == digests(found)["original"]


async def test_kill_of_a_split_render_ends_both_processes(tmp_path: Path) -> None:
    task = render_task(tmp_path, make.large_jpeg(4000, 3000), Images().recipe)
    lanes = [ProcessLane(name, nice=0, jobs_per_process=10) for name in ("first", "second")]
    working = SplitLane(lanes[0], lanes[1], Loan(1))
    outcomes: list[Outcome] = []

    async def run() -> None:
        outcomes.append(await working.run(task))

    try:
        for lane in lanes:
            await lane.start()
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await until(lambda: all(lane._pool and lane._pool.has_begun() for lane in lanes))
            working.kill()
        assert isinstance(outcomes[0], Failure)
        assert not any(lane.alive for lane in lanes)
    finally:
        for lane in lanes:
            await lane.close()
