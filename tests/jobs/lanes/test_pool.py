"""What a warm process and its child do when one of them does not do what it should."""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from fixtures import make
from imgsvc.imaging.malloc import LARGE_PAGES, TUNABLES, tunables
from imgsvc.jobs.lanes.messages import Rendered, Task
from imgsvc.jobs.lanes.pool import KEPT_ENVIRONMENT
from imgsvc.jobs.lanes.process import EndReason, ProcessLane
from imgsvc.jobs.retry import Failure
from imgsvc.service.lanes import worker_lanes
from imgsvc.settings import Settings
from imgsvc.telemetry.metrics import Metrics
from tests.support.lanes import SMALL, started
from tests.support.render_task import render_task
from tests.support.server_process import children, environment_block, is_running
from tests.support.speed import seconds, within


def in_child_of(lines: dict[str, str]) -> str:
    """Lines for `instead`: the children of these tasks do this, every other one what it should.

    The pipe for its answer is `max(files) + 2`: the other end was between.
    """
    begin = "import os, signal, time\ndef instead(task, files, usual=warm._answer_of):\n"
    cases = "".join(f"    if task['id'] == {task!r}: {line}\n" for task, line in lines.items())
    return f"{begin}{cases}    return usual(task, files)\nwarm._answer_of = instead"


def in_first_child(line: str) -> str:
    return in_child_of({"job.1": line})


@pytest.mark.parametrize("large_pages", [True, False])
async def test_worker_has_large_pages_if_they_are_set_and_nothing_else_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, large_pages: bool
) -> None:
    monkeypatch.setenv("SECRET", "of the service")
    monkeypatch.setenv(TUNABLES, "glibc.malloc.check=3")
    settings = Settings.model_validate({"workers": {"count": 1, "large_pages": large_pages}})
    async with worker_lanes(settings, Metrics(settings), None, {}) as lanes:
        lane = lanes.previews[0]
        assert isinstance(lane, ProcessLane)
        await lane.start()
        assert lane.pid
        if block := environment_block(lane.pid):
            whole = block.decode().replace("\0glibc.", ":glibc.")  # the C library has cut it into its parts
            names = dict(line.split("=", 1) for line in whole.split("\0") if line)
            assert names[TUNABLES] == tunables(large_pages=large_pages)
            assert (LARGE_PAGES in names[TUNABLES]) is large_pages
            assert names.keys() <= {*KEPT_ENVIRONMENT, TUNABLES, "PYTHONPATH"}


async def child_of(lane: ProcessLane) -> int:
    """The child of a task that the service knows to have begun."""
    assert lane.pid and lane._pool
    with within(20):
        while not lane._pool.has_begun():
            await anyio.sleep(0.002)
    return children(lane.pid)[0]


ENDS: dict[str, tuple[str, str, EndReason]] = {  # of the child of each of these tasks
    "killed.1": ("os.kill(os.getpid(), signal.SIGKILL)", "worker_crashed", "died"),
    "silent.1": ("os._exit(0)", "worker_crashed", "died"),
    "failed.1": ("os.write(max(files) + 2, b'{'); os._exit(1)", "worker_crashed", "died"),
    "half.1": ("os.write(max(files) + 2, b'{'); os._exit(0)", "worker_crashed", "unusable_answer"),
    "long.1": ("return b'x' * 70_000", "worker_crashed", "unusable_answer"),
    "asleep.1": ("time.sleep(600)", "timeout", "time_limit"),
    "closed.1": ("os.close(max(files) + 2); time.sleep(600)", "timeout", "time_limit"),
}


async def test_end_of_a_child_is_its_own_task_s_alone(instead: Any, task: Task) -> None:
    instead(in_child_of({name: line for name, (line, _, _) in ENDS.items()}))
    ended: list[EndReason] = []
    async with started(ended) as lane:
        pid = lane.pid
        for number, (name, (_, code, reason)) in enumerate(ENDS.items()):
            limit = 0.3 if code == "timeout" else 60
            outcome = await lane.run(replace(task, id=name, kind="preview", time_limit=limit))
            assert isinstance(outcome, Failure), name
            assert (outcome.code, outcome.death) == (code, code == "worker_crashed"), name
            assert ended.pop() == reason and not ended, name
            assert (lane.pid, lane.alive, children(pid or 0)) == (pid, True, []), name
            assert isinstance(await lane.run(replace(task, id=f"next.{number}")), Rendered), name


async def test_child_collects_its_own_garbage_and_none_of_what_was_loaded(instead: Any, task: Task) -> None:
    check = "import gc; assert gc.isenabled() and gc.get_freeze_count() > 10_000"
    instead(in_first_child(f"{check}; return usual(task, files)"))
    async with started([]) as lane:
        assert isinstance(await lane.run(task), Rendered)


async def test_child_of_a_warm_process_that_does_not_answer_is_killed_too(instead: Any, task: Task) -> None:
    instead(in_first_child("time.sleep(600)"))
    ended: list[EndReason] = []
    async with started(ended) as lane, anyio.create_task_group() as group:
        outcomes: list[object] = []

        async def run() -> None:
            outcomes.append(await lane.run(replace(task, kind="preview", time_limit=0.2)))

        group.start_soon(run)
        child, pid = await child_of(lane), lane.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        with within(20):
            while not outcomes:
                await anyio.sleep(0.01)
        assert time.monotonic() - began < seconds(2)
        assert isinstance(outcomes[0], Failure) and outcomes[0].code == "timeout"
        assert (is_running(pid), is_running(child), ended) == (False, False, ["time_limit"])


@pytest.mark.parametrize("how", ["dies", "lane.kill"])
async def test_nothing_is_left_of_a_task_whose_warm_process_ends(instead: Any, task: Task, how: str) -> None:
    instead(in_first_child("time.sleep(600)"))
    ended: list[EndReason] = []
    async with started(ended) as lane, anyio.create_task_group() as group:
        outcomes: list[object] = []

        async def run() -> None:
            outcomes.append(await lane.run(task))

        group.start_soon(run)
        child, pid = await child_of(lane), lane.pid
        assert pid
        if how == "dies":
            os.kill(pid, signal.SIGKILL)
        else:
            lane.kill()
        with within(20):
            while not outcomes:
                await anyio.sleep(0.01)
        assert isinstance(outcomes[0], Failure) and outcomes[0].death
        assert (is_running(child), ended) == (False, ["died" if how == "dies" else "killed"])
        assert isinstance(await lane.run(replace(task, id="job.2")), Rendered)


async def test_warm_process_that_dies_before_a_task_is_not_held_against_it(task: Task) -> None:
    ended: list[EndReason] = []
    async with started(ended) as lane:
        assert lane.pid
        os.kill(lane.pid, signal.SIGSTOP)
        async with anyio.create_task_group() as group:
            outcomes: list[object] = []

            async def run() -> None:
                outcomes.append(await lane.run(task))

            group.start_soon(run)
            await anyio.wait_all_tasks_blocked()
            await anyio.sleep(0.05)  # the task and its files are on their way
            os.kill(lane.pid, signal.SIGKILL)
        assert isinstance(outcomes[0], Rendered)
        assert ended == ["died_idle"]


async def test_worker_without_the_cage_that_is_required_does_not_start(instead: Any) -> None:
    instead(
        """
        def build(mode, **_):
            raise warm.CageUnavailable("this kernel has no Landlock")
        warm.Cage.build = build
        """
    )
    lane = ProcessLane("render", nice=0, jobs_per_process=1, cage="require")
    with pytest.raises(OSError, match="cage is require, but this kernel has no Landlock"):
        await lane.start()
    assert (lane.alive, lane.pid, lane.posture) == (False, None, None)


async def test_worker_that_can_not_be_launched_is_an_error_of_this_machine(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = ProcessLane("render", nice=0, jobs_per_process=1)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(FileNotFoundError):
            await lane.start()
        outcome = await lane.run(task)
    assert isinstance(outcome, Failure) and (outcome.code, outcome.death) == ("internal_error", False)
    assert isinstance(await lane.run(task), Rendered)
    await lane.close()


async def test_lane_says_what_its_cage_puts_in_force(task: Task) -> None:
    async with started([]) as lane:
        assert lane.posture and (lane.posture.mode, lane.posture.limits) == ("best", True)


async def test_source_that_is_a_link_is_not_followed(task: Task, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(task.source)
    async with started([]) as lane:
        outcome = await lane.run(replace(task, source=str(link)))
        assert isinstance(outcome, Failure) and outcome.code == "io_error"


async def test_preview_that_is_not_cheap_leaves_an_empty_file(tmp_path: Path) -> None:
    large = make.encoded(make.photo(1700, 1300), "PNG", compress_level=1)
    task = render_task(tmp_path, large, replace(SMALL, max_pixels=50_000_000), "image/png")
    async with started([]) as lane:
        assert await lane.run(replace(task, kind="preview")) is None
    assert [path.stat().st_size for path in Path(task.folder).iterdir()] == [0]
