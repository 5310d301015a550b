"""A lane believes its worker only what the protocol says, and a worker that keeps to nothing ends alone."""

import asyncio
import gc
import json
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import uvloop
from pydantic import ValidationError

from fixtures import make
from imgsvc import testing
from imgsvc.access.tokens import Tokens
from imgsvc.jobs import queue
from imgsvc.jobs.failures import CRASHED
from imgsvc.jobs.lanes import process
from imgsvc.jobs.lanes.messages import Answer, Outcome, Rendered, Task
from imgsvc.jobs.lanes.pool import Launcher
from imgsvc.jobs.lanes.process import EndReason
from imgsvc.jobs.retry import Failure
from imgsvc.service.app import create_app
from imgsvc.service.assembly import Doubles
from tests.conftest import with_workers
from tests.support.lanes import lane
from tests.support.server_process import is_running
from tests.support.speed import within


def answering(text: str) -> str:
    """Let the child of each task answer this."""
    return f"warm._answer_of = lambda task, files: {text!r}.encode()"


async def test_worker_that_is_late_with_its_hello_is_killed(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[EndReason] = []
    async with lane(ended) as one:
        monkeypatch.setattr(process, "START_SECONDS", 0.02)
        with pytest.raises(OSError, match="not ready within"):
            await one.start()
        assert (one.alive, one.pid, ended) == (False, None, ["time_limit"])
        monkeypatch.setattr(process, "START_SECONDS", 60)
        await one.start()
        outcomes = [await one.run(replace(task, id=f"job.{number}")) for number in range(3)]
        assert all(isinstance(outcome, Rendered) for outcome in outcomes), outcomes


UNPREPARED = "warm.initialize = lambda *_: None"  # what loading and using the codecs takes is saved
NOT_MESSAGES = ["a library says hello", "[1]", "{}", '{"ready": 1}', "x" * 2_000_000, "[" * 200_000]


@pytest.mark.parametrize("text", NOT_MESSAGES)
@pytest.mark.parametrize("place", ["hello", "result"])
async def test_something_else_than_the_hello_ends_that_worker_alone(instead: Any, text: str, place: str) -> None:
    """Instead of the message, or of the whole result that the pool reads."""
    sent = f"self._writer.send_bytes({text!r}.encode())"
    replaced = {
        "hello": f"warm.hello = lambda: {text!r}",
        "result": f"spawn_context.Results.put = lambda self, item: {sent}",
    }
    instead(f"{UNPREPARED}\n{replaced[place]}")
    ended: list[EndReason] = []
    async with lane(ended) as one:
        with pytest.raises(OSError, match="something else"):
            await one.start()
        assert (one.alive, ended) == (False, ["unusable_answer"])


NOT_ENDS = [*NOT_MESSAGES[:3], '{"end": "answered"}', '{"end": "answered", "status": "0"}', "x" * 100_000, "[" * 60_000]


@pytest.mark.parametrize("text", NOT_ENDS)
async def test_something_else_than_the_end_of_a_task_ends_that_worker_alone(
    instead: Any, task: Task, text: str
) -> None:
    instead(f"warm.WarmProcess.serve = lambda self: self._service.recv(1) and self._ends.send({text!r}.encode())")
    ended: list[EndReason] = []
    async with lane(ended) as one:
        assert await one.run(task) == CRASHED
        assert (one.alive, ended) == (False, ["unusable_answer"])


async def test_service_starts_and_recovers_when_workers_say_too_much(instead: Any, tmp_path: Path) -> None:
    instead(f"import os\nif os.path.exists({str(tmp_path / 'talk')!r}): warm.hello = lambda: 'a library says hello'")
    (tmp_path / "talk").touch()
    async with with_workers(tmp_path / "data") as s:
        assert (await s.http.get("/api/v1/health")).json()["checks"]["workers"]["status"] == "unhealthy"
        accepted = await s.upload(make.jpeg(160, 120))
        (tmp_path / "talk").unlink()
        assert (await s.ended(accepted))["status"] == "completed"


class UnstartableLane(testing.InlineLane):
    """Its worker can't be started so many times."""

    def __init__(self, name: str, failures: int) -> None:
        super().__init__(name)
        self.failures = failures
        self.starts: list[float] = []

    async def start(self) -> None:
        self.starts.append(time.monotonic())
        if len(self.starts) <= self.failures:
            raise OSError("no process")


async def test_workers_that_can_not_be_started_are_tried_again_more_and_more_rarely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "START_AGAIN_SECONDS", 0.02)
    monkeypatch.setattr(queue, "LONGEST_START_PAUSE_SECONDS", 0.08)
    lanes = [UnstartableLane("preview", 5), UnstartableLane("render", 5)]
    app = create_app(testing.settings_in(tmp_path), Doubles(lanes=lanes))
    with within(20):
        async with app.router.lifespan_context(app):
            while any(len(lane.starts) <= lane.failures for lane in lanes):
                await anyio.sleep(0.01)
    for one in lanes:
        pauses = [after - before for before, after in pairwise(one.starts)]
        expected = (0.02, 0.04, 0.08, 0.08, 0.08)
        assert all(pause >= least for pause, least in zip(pauses, expected, strict=True)), pauses


NO_ANSWERS = {  # by the task that gets it
    "empty.1": "{}",
    "half.1": '{"rendering": null}',
    "null.1": "null",
    "no_preview.1": '{"task": "no_preview.1", "outcome": "no_preview", "rendering": null, "error": null, "seconds": 0,'
    ' "log": null}',
    "task.1": '{"task": "another.1", "outcome": "failed", "rendering": null, "error": {"code": "io_error", "message":'
    ' ""}, "seconds": 0, "log": null}',
    "code.1": '{"task": "code.1", "outcome": "failed", "rendering": null, "error": {"code": "interrupted", "message":'
    ' ""}, "seconds": 0, "log": null}',
}


async def test_answer_that_is_none_counts_as_a_death(instead: Any, task: Task) -> None:
    instead(f"warm._answer_of = lambda task, files: {NO_ANSWERS!r}[task['id']].encode()")
    ended: list[EndReason] = []
    async with lane(ended) as one:
        for number, name in enumerate(NO_ANSWERS, 1):
            outcome = await one.run(replace(task, id=name))
            assert isinstance(outcome, Failure), name
            assert (outcome.code, outcome.death, one.alive) == ("worker_crashed", True, True), name
            assert ended == ["unusable_answer"] * number, name


async def test_words_of_a_worker_are_not_passed_on(instead: Any, task: Task) -> None:
    error = {"code": "image_unreadable", "message": "the secret is hunter2"}
    answer = {"task": task.id, "outcome": "failed", "rendering": None, "error": error, "seconds": 0}
    instead(answering(json.dumps(answer | {"log": "a\nb\x1b[2J"})))
    async with lane([]) as one:
        outcome = await one.run(task)
    assert outcome == Failure("image_unreadable", "The image can't be decoded: its data is damaged.")
    read = Answer.model_validate_json(json.dumps(answer | {"log": "a\nb\x1b[2J"}))
    assert read.quoted_log == "a\\nb\\x1b[2J"
    with pytest.raises(ValidationError):
        Answer.model_validate_json(json.dumps(answer | {"log": "x" * 5_000}))


class NoPreviewOfARender(testing.InlineLane):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.tasks = self.kills = 0

    async def run(self, task: Task) -> Outcome:
        self.tasks += 1
        await anyio.lowlevel.checkpoint()
        return None if task.kind == "render" else await super().run(task)

    def kill(self) -> None:
        self.kills += 1


async def test_render_that_made_nothing_is_a_crash_and_not_begun_for_ever(tmp_path: Path) -> None:
    settings = testing.settings_in(tmp_path)
    render = NoPreviewOfARender("render")
    app = create_app(settings, Doubles(lanes=(testing.InlineLane("preview"), render)))
    transport = httpx.ASGITransport(app=app)
    async with app.router.lifespan_context(app), testing.Client(transport, Tokens.of(settings)) as client:
        job_id = (await client.upload(testing.picture())).json()["job_id"]
        with within(20):
            while (job := (await client.get(f"/api/v1/images/jobs/{job_id}")).json())["status"] != "failed":
                await anyio.sleep(0.01)
    assert (job["error_code"], job["attempts"], render.tasks, render.kills) == ("worker_crashed", 2, 2, 0)


async def test_cancelled_launch_leaves_no_process(task: Task) -> None:
    async with lane([]) as one:
        with anyio.move_on_after(0):
            await one.start()
        with anyio.move_on_after(0.01):
            await one.run(task)
        assert isinstance(await one.run(replace(task, id="job.2")), Rendered)
        pid = one.pid
        assert pid
    assert not is_running(pid)


def test_worker_that_was_closed_leaves_no_descriptor() -> None:
    """Nothing is left to the garbage collector: by then the number may be another file's."""

    async def leftovers() -> list[list[str]]:
        launcher = Launcher()
        found = []
        for _ in range(2):  # the first time, libuv opens a descriptor for itself
            pool = await launcher.launch(0, "best")
            await pool.hello()
            await pool.close()
            found.append(sorted(str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()))
        launcher.close()
        return found

    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            first, second = runner.run(leftovers())
            assert first == second
    finally:
        gc.enable()
