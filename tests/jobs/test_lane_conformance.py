"""What every lane must do: each test runs against all of them. A new kind of lane is added to LANES."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from fixtures import make
from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.jobs.lanes.base import Lane
from imgsvc.jobs.lanes.messages import Rendered, Task
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.jobs.rendered_files import (
    check_answer,
    check_received,
    checked_file,
    received_at,
    source_header,
    take_checked,
)
from imgsvc.jobs.retry import Failure
from imgsvc.testing import InlineLane
from tests.support.render_task import render_task
from tests.support.speed import within

RECIPE = Recipe((Variant("small", 64, 80, 2), Variant("large", 200, 80, 2)), max_pixels=10_000_000, max_frames=10)
LANES: dict[str, Callable[[], Lane]] = {
    "process": lambda: ProcessLane("render", nice=0, jobs_per_process=3),
    "inline": lambda: InlineLane("render"),
}


@pytest.fixture(params=LANES)
async def lane(request: pytest.FixtureRequest) -> AsyncIterator[Lane]:
    one = LANES[request.param]()
    yield one
    await one.close()


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return a_task(tmp_path, make.jpeg(320, 200))


def a_task(tmp_path: Path, data: bytes) -> Task:
    return render_task(tmp_path, data, RECIPE)


async def test_start_makes_it_alive_and_can_be_repeated(lane: Lane) -> None:
    await lane.start()
    first = lane.pid
    await lane.start()
    assert (lane.alive, lane.pid, lane.jobs_done, lane.restarts) == (True, first, 0, 0)
    assert lane.name == "render"


async def test_rendering_is_what_was_asked_for_and_lies_where_it_belongs(
    lane: Lane, task: Task, tmp_path: Path
) -> None:
    await lane.start()
    rendered = await lane.run(task)
    assert isinstance(rendered, Rendered)
    check_answer(rendered, RECIPE, {"small", "large"}, source_header(Path(task.source), task.mime, 320 * 200))
    if lane.local:
        take_checked(Path(task.folder), rendered.variants, tmp_path / "checked", 0)
        there = {path for path in tmp_path.iterdir() if path.name.startswith("checked")}
        assert there == {checked_file(tmp_path / "checked", name) for name in ("small", "large")}
    else:
        check_received(rendered.variants, received_at(task), 0)
        there = {path for path in Path(task.folder).parent.iterdir() if path.name.startswith("received-")}
        assert there == {checked_file(received_at(task), name) for name in ("small", "large")}
    assert lane.jobs_done == 1


async def test_what_is_done_is_not_made_again(lane: Lane, task: Task) -> None:
    rendered = await lane.run(replace(task, done=("small",)))
    assert isinstance(rendered, Rendered)
    assert [made.name for made in rendered.variants] == ["large"]


async def test_preview_is_the_smallest_variant_alone(lane: Lane, task: Task) -> None:
    rendered = await lane.run(replace(task, kind="preview"))
    assert isinstance(rendered, Rendered)
    assert [made.name for made in rendered.variants] == ["small"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"data": b"no picture at all"}, "image_unreadable"),
        ({"data": make.jpeg(320, 200)[:-2000]}, "image_unreadable"),
        ({"sha256": "0" * 64}, "source_damaged"),
        ({"source": "/nowhere/at/all"}, "source_missing"),
        ({"time_limit": 0.0}, "timeout"),
    ],
    ids=["no picture", "cut off", "other bytes", "no source", "no time"],
)
async def test_each_failure_has_its_code_and_the_next_task_is_done(
    lane: Lane, tmp_path: Path, change: dict[str, bytes | str | float], code: str
) -> None:
    data = change.get("data", make.jpeg(320, 200))
    assert isinstance(data, bytes)
    differences: dict[str, Any] = {name: value for name, value in change.items() if name != "data"}
    failure = await lane.run(replace(a_task(tmp_path, data), **differences))
    assert isinstance(failure, Failure)
    assert (failure.code, failure.death) == (code, False)
    assert failure.message
    assert isinstance(await lane.run(replace(a_task(tmp_path, make.jpeg(320, 200)), id="job.2")), Rendered)


async def test_tasks_are_done_one_after_the_other_whatever_process_does_them(lane: Lane, task: Task) -> None:
    for number in range(5):  # more than `jobs_per_process`
        assert isinstance(await lane.run(replace(task, id=f"job.{number}")), Rendered)
        await lane.start()
        assert lane.alive


async def test_run_starts_what_was_not_started(lane: Lane, task: Task) -> None:
    assert isinstance(await lane.run(task), Rendered)


async def test_kill_may_come_at_any_moment_and_twice(lane: Lane, task: Task) -> None:
    lane.kill()
    await lane.start()
    async with anyio.create_task_group() as group:
        group.start_soon(lane.run, task)
        await anyio.sleep(0.01)
        lane.kill()
        lane.kill()
    assert isinstance(await lane.run(replace(task, id="job.2")), Rendered)


async def test_cancelled_task_leaves_a_lane_that_does_the_next(lane: Lane, task: Task) -> None:
    await lane.start()
    with anyio.move_on_after(0.01):
        await lane.run(task)
    with within(20):
        assert isinstance(await lane.run(replace(task, id="job.2")), Rendered)


async def test_lane_that_was_shut_is_not_alive_and_can_be_closed_twice(lane: Lane) -> None:
    await lane.start()
    lane.shut()
    lane.shut()
    await lane.close()
    await lane.close()
    assert not lane.alive
