"""Whatever is wrong with a picture is said of the picture: never of memory, never as an error of ours."""

from pathlib import Path

import pytest

from fixtures import hostile, make
from imgsvc.imaging import pipeline
from imgsvc.imaging.pipeline import Picture
from imgsvc.jobs.lanes.messages import Answer, Task
from imgsvc.testing import perform_here
from tests.conftest import with_workers
from tests.support.damaged import damage, verdicts
from tests.support.render_task import render_task
from tests.support.rendering import FORMS, RECIPE

SAID = {"image_unreadable", "image_too_large", "image_unsupported", "ok"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [40, pytest.param(600, marks=pytest.mark.torture)])
def test_damage_is_said_of_the_picture(tmp_path: Path, form: str, count: int) -> None:
    """Each file under its own memory ceiling, in one process that none of them ends."""
    said = verdicts(tmp_path, form, damage(form, count))
    assert {verdict.partition(": ")[2] for verdict in said} <= SAID, said
    assert said["render: image_unreadable"] > count / 8


def task(folder: Path, data: bytes) -> Task:
    return render_task(folder, data, RECIPE, "image/png")


@pytest.mark.parametrize("error", [KeyError("k"), IndexError(), SyntaxError(), OverflowError(), OSError("no number")])
def test_an_error_of_any_step_is_final_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(_picture: Picture) -> None:
        raise error

    monkeypatch.setattr(pipeline, "STEPS", (*pipeline.STEPS[:2], broken, *pipeline.STEPS[2:]))
    answer = Answer.model_validate(perform_here(task(tmp_path, make.encoded(make.quadrants(), "PNG"))))
    assert answer.error and answer.error.code == "image_unreadable"
    assert answer.log and type(error).__name__ in answer.log and "broken" in answer.log


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_memory_and_disk_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def broken(_picture: Picture) -> None:
        raise error

    monkeypatch.setattr(pipeline, "STEPS", (broken,))
    given = task(tmp_path, make.encoded(make.quadrants(), "PNG"))
    if isinstance(error, MemoryError):
        with pytest.raises(MemoryError):
            perform_here(given)
    else:
        assert perform_here(given)["error"]["code"] == "io_error"


@pytest.mark.workers
async def test_a_damaged_length_costs_no_worker(tmp_path: Path) -> None:
    async with with_workers(tmp_path) as s:
        await s.completed(make.jpeg(64, 48))
        before = [(lane.name, lane.restarts) for lane in s.state.jobs.queue.lanes()]
        for _ in range(3):
            job = await s.ended(await s.upload(hostile.damaged_length()))
            assert (job["status"], job["error_code"], job["attempts"]) == ("failed", "image_unreadable", 1)
        assert [(lane.name, lane.restarts) for lane in s.state.jobs.queue.lanes()] == before
