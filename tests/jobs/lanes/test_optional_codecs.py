"""The codecs of HEIC and AVIF in a warm process: their failures are no picture's, and their time is not either."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from fixtures import coded, make
from imgsvc.jobs.lanes import process
from imgsvc.jobs.lanes.files import needs_optional_codecs
from imgsvc.jobs.lanes.messages import Rendered, Task
from imgsvc.jobs.lanes.process import EndReason, ProcessLane
from tests.support.lanes import SMALL
from tests.support.render_task import render_task
from tests.support.server_process import is_running
from tests.support.speed import within

Instead = Callable[[str], None]
AVIF = replace(SMALL.variants[0], format="avif", effort=0)
# What the warm process does instead, once, when it loads them, and what its first child does, which tells the versions.
FIRST = """
import os, time
from pathlib import Path
from imgsvc.imaging import warm_up
usual, warm_process, mark = warm_up.use_optional_codecs, os.getpid(), Path({mark!r})
def first():
    if os.getpid() != warm_process:
        {in_child}
    elif not mark.exists():
        mark.touch()
        {does}
    return usual()
warm_up.use_optional_codecs = first
"""


@pytest.fixture
def heic(tmp_path: Path) -> Task:
    pytest.importorskip("pillow_heif")
    return render_task(tmp_path, coded.heic(make.photo(320, 200), quality=80), SMALL, "image/heic")


def lane(ended: list[EndReason]) -> ProcessLane:
    return ProcessLane("render", nice=0, jobs_per_process=10, ended=ended.append)


@pytest.mark.parametrize("does", ["return {}", "raise MemoryError"], ids=["other versions", "no memory"])
async def test_process_that_can_not_load_them_is_replaced(
    tmp_path: Path, heic: Task, instead: Instead, does: str
) -> None:
    instead(FIRST.format(mark=str(tmp_path / "mark"), does=does, in_child="pass"))
    ended: list[EndReason] = []
    one = lane(ended)
    try:
        assert isinstance(await one.run(replace(heic, time_limit=10)), Rendered)
        assert ended == ["died_idle"]
    finally:
        await one.close()


async def test_their_time_is_not_the_pictures(
    tmp_path: Path, heic: Task, instead: Instead, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "KILL_AFTER_SECONDS", {"preview": 0.0, "render": 0.0})
    monkeypatch.setattr(process, "REPORT_SECONDS", 0.1)
    instead(FIRST.format(mark=str(tmp_path / "mark"), does="time.sleep(1.3)", in_child="pass"))
    ended: list[EndReason] = []
    one = lane(ended)
    try:
        assert isinstance(await one.run(replace(heic, time_limit=1.0)), Rendered)
        assert ended == []
    finally:
        await one.close()


async def test_child_that_tells_the_versions_ends_with_its_worker(tmp_path: Path, instead: Instead) -> None:
    mark = tmp_path / "mark"
    instead(FIRST.format(mark=str(mark), does="pass", in_child="mark.write_text(str(os.getpid())); time.sleep(600)"))
    one = lane([])
    async with anyio.create_task_group() as group:
        group.start_soon(start, one)
        with within(20):
            while not (mark.exists() and mark.read_text()):
                await anyio.sleep(0.01)
        one.shut()
    await one.close()
    with within(10):
        while is_running(int(mark.read_text())):
            await anyio.sleep(0.01)


async def start(one: ProcessLane) -> None:
    with pytest.raises(OSError, match="the worker ended while it was starting"):
        await one.start()


def test_which_tasks_need_them(tmp_path: Path) -> None:
    both = replace(SMALL, variants=(*SMALL.variants, replace(AVIF, name="large", side=100)))
    usual, written = (render_task(tmp_path, make.tiny(), recipe) for recipe in (SMALL, both))
    assert needs_optional_codecs(replace(usual, mime="image/heic")) and not needs_optional_codecs(usual)
    assert needs_optional_codecs(written)
    assert not needs_optional_codecs(replace(written, kind="preview"))
    assert not needs_optional_codecs(replace(written, done=("large",)))
