"""A lane believes its worker only what the protocol says, and a worker that keeps to nothing ends alone."""

import asyncio
import gc
import json
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
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
from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.jobs.lanes import process
from imgsvc.jobs.lanes.messages import Answer, Outcome, Rendered, Task
from imgsvc.jobs.lanes.process import EndReason, ProcessLane
from imgsvc.jobs.lanes.worker_handle import Launcher, Worker
from imgsvc.jobs.retry import Failure
from imgsvc.service.app import create_app
from imgsvc.service.assembly import Doubles
from tests.conftest import with_workers
from tests.support.render_task import render_task
from tests.support.server_process import is_running
from tests.support.speed import seconds

RECIPE = Recipe((Variant("small", 64, 80, 2),), max_pixels=10_000_000, max_frames=10)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return render_task(tmp_path, make.jpeg(320, 200), RECIPE)


@asynccontextmanager
async def lane(ended: list[EndReason]) -> AsyncIterator[ProcessLane]:
    one = ProcessLane("render", nice=0, jobs_per_process=100, ended=ended.append)
    try:
        yield one
    finally:
        await one.close()


@pytest.fixture
def instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let every worker run these lines before the first of its own, by a `sitecustomize` that no other process has."""
    folder = tmp_path / "customized"
    folder.mkdir()

    def install(lines: str) -> None:
        guard = "import sys\nif 'imgsvc.jobs.lanes.worker' in sys.orig_argv:\n"
        (folder / "sitecustomize.py").write_text(guard + textwrap.indent(textwrap.dedent(lines), "    "))
        monkeypatch.syspath_prepend(str(folder))

    return install


ANSWERING = """
import json, os
out = os.fdopen(os.dup(1), "w", buffering=1)
print(json.dumps({"ready": os.getpid(), "decoder": "12.post0"}), file=out)
for line in sys.stdin:
    task = json.loads(line)
    print(json.dumps({"started": task["id"]}), file=out)
    print(%r %% task if "%%" in %r else %r, file=out)
os._exit(0)
"""


def answering(line: str) -> str:
    return ANSWERING % (line, line, line)


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


@pytest.mark.parametrize("line", ["a library says hello", "[1]", "{}", '{"ready": 1}', "x" * 2_000_000, "[" * 200_000])
async def test_line_before_the_hello_ends_that_worker_alone(instead: Any, line: str) -> None:
    instead(f"import os\nos.write(1, {line!r}.encode() + b'\\n')")
    ended: list[EndReason] = []
    async with lane(ended) as one:
        with pytest.raises(OSError, match="something else"):
            await one.start()
        assert (one.alive, ended) == (False, ["unusable_answer"])


async def test_service_starts_and_recovers_when_workers_say_too_much(instead: Any, tmp_path: Path) -> None:
    instead(f"import os\nif os.path.exists({str(tmp_path / 'talk')!r}): print('a library says hello', flush=True)")
    (tmp_path / "talk").touch()
    async with with_workers(tmp_path / "data") as s:
        assert (await s.http.get("/api/v1/health")).json()["checks"]["workers"]["status"] == "unhealthy"
        accepted = await s.upload(make.jpeg())
        (tmp_path / "talk").unlink()
        assert (await s.ended(accepted))["status"] == "completed"


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"rendering": null}',
        "null",
        '{"task": "%(id)s", "outcome": "no_preview", "rendering": null, "error": null, "seconds": 0, "retire": false,'
        ' "log": null}',
        '{"task": "another.1", "outcome": "failed", "rendering": null, "error": {"code": "io_error", "message": ""},'
        ' "seconds": 0, "retire": false, "log": null}',
        '{"task": "%(id)s", "outcome": "failed", "rendering": null, "error": {"code": "interrupted", "message": ""},'
        ' "seconds": 0, "retire": false, "log": null}',
    ],
)
async def test_answer_that_is_none_counts_as_a_death(instead: Any, task: Task, line: str) -> None:
    instead(answering(line))
    ended: list[EndReason] = []
    async with lane(ended) as one:
        outcome = await one.run(task)
        assert isinstance(outcome, Failure)
        assert (outcome.code, outcome.death, one.alive, ended) == ("worker_crashed", True, False, ["unusable_answer"])


async def test_words_of_a_worker_are_not_passed_on(instead: Any, task: Task) -> None:
    error = {"code": "image_unreadable", "message": "the secret is hunter2"}
    answer = {"task": task.id, "outcome": "failed", "rendering": None, "error": error, "seconds": 0, "retire": False}
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
        with anyio.fail_after(seconds(20)):
            while (job := (await client.get(f"/api/v1/images/jobs/{job_id}")).json())["status"] != "failed":
                await anyio.sleep(0.01)
    assert (job["error_code"], job["attempts"], render.tasks, render.kills) == ("worker_crashed", 2, 2, 2)


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
    """What the garbage collector closes later, uvloop closes a second time: by then it may be another file's number."""

    async def leftovers() -> list[int]:
        launcher = Launcher()
        counts = []
        for _ in range(2):  # the first time, libuv opens a descriptor for itself
            worker = await Worker.launch(launcher, 0)
            await worker.close()
            for _ in range(3):  # uvloop closes in its next round
                await anyio.lowlevel.checkpoint()
            counts.append(len(list(Path("/proc/self/fd").iterdir())))
        launcher.close()
        return counts

    gc.disable()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            first, second = runner.run(leftovers())
            assert first == second
    finally:
        gc.enable()
