"""The memory of a warm process, with which the process of the next picture begins."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import coded, make
from imgsvc.jobs.lanes.messages import Rendered
from imgsvc.jobs.lanes.process import ProcessLane
from tests.conftest import with_workers
from tests.support.lanes import SMALL
from tests.support.render_task import render_task


def written_memory(pid: int) -> Iterator[bytes]:
    """All memory that the process may write: it has one thread and is waiting."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights = line.split()[:2]
            begin, end = (int(part, 16) for part in place.split("-"))
            if rights.startswith("rw"):
                memory.seek(begin)
                yield memory.read(end - begin)


def holds(pid: int, text: str) -> bool:
    return any(text.encode() in part for part in written_memory(pid))


@pytest.fixture
def as_root() -> None:
    if os.getuid() != 0:
        pytest.skip("the warm process can't be read by its own user")


@pytest.mark.usefixtures("as_root")
async def test_nothing_of_a_task_stays_but_its_random_id(tmp_path: Path) -> None:
    task = render_task(tmp_path, make.jpeg(320, 200), SMALL)
    task = replace(task, job_id="a-job-of-alice", trace_id="a-trace-of-alice")
    lane = ProcessLane("render", nice=0, jobs_per_process=10)
    try:
        outcome = await lane.run(task)
        assert isinstance(outcome, Rendered) and lane.pid
        for text in (task.job_id, task.trace_id, task.sha256, task.source, task.folder, task.recipe):
            assert not holds(lane.pid, text), text
    finally:
        await lane.close()


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("form", ["HEIC", "AVIF", "as AVIF"])
async def test_optional_codecs_are_loaded_for_the_first_picture_that_needs_them(tmp_path: Path, form: str) -> None:
    pytest.importorskip("pillow_heif" if form == "HEIC" else "pillow_avif")
    folders = [tmp_path / "usual", tmp_path / "needing"]
    for folder in folders:
        folder.mkdir()
    usual = render_task(folders[0], make.jpeg(320, 200), SMALL)
    if form == "as AVIF":
        written = replace(SMALL, variants=(replace(SMALL.variants[0], format="avif", effort=0),))
        needing = render_task(folders[1], make.jpeg(320, 200), written)
    else:
        data = (coded.heic if form == "HEIC" else coded.avif)(make.photo(320, 200), quality=80)
        needing = render_task(folders[1], data, SMALL, f"image/{form.lower()}")
    lane = ProcessLane("render", nice=0, jobs_per_process=10)
    try:
        assert isinstance(await lane.run(usual), Rendered) and lane.pid
        warm, begun = lane.pid, Path(f"/proc/{lane.pid}/maps")
        assert "libwebp" in begun.read_text() and "libavif" not in begun.read_text()
        assert set(lane.decoders) >= {needing.mime} - {usual.mime}, "its versions are known beforehand"
        for task in (needing, usual, needing):
            outcome = await lane.run(task)
            assert isinstance(outcome, Rendered), outcome
        assert "libavif" in begun.read_text() and lane.pid == warm
    finally:
        await lane.close()


@pytest.mark.usefixtures("as_root")
async def test_service_leaves_no_secret_and_no_name_of_a_job_there(tmp_path: Path) -> None:
    async with with_workers(tmp_path) as s:
        job = await s.completed(make.jpeg(320, 200))
        secrets = [(tmp_path / name).read_text().strip() for name in ("jwt_secret", "operator_token")]
        workers = [lane.pid for lane in s.state.jobs.queue.lanes() if lane.pid]
        assert len(workers) == 2
        for pid in workers:
            for text in (job["job_id"], job["image_id"], *secrets):
                assert not holds(pid, text), text
