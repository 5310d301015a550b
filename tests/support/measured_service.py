"""A service that measures how long its event loop is held up: `python -m tests.support.measured_service serve …`.

MEASURED_FILE: where it writes, at its end, a line for each 5 ms: when, how late the loop came back to a task that had
slept for 5 ms, and how long the loop's thread has waited for a processor meanwhile, all in seconds.
MEASURED_LANES: `PLACES RATE`, for lanes that render one picture, and then only write what that made, all together so
many times a second.
"""

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.applications import Starlette

from imgsvc import testing
from imgsvc.cli.main import main
from imgsvc.imaging.recipe import scratch_file
from imgsvc.jobs.lanes.files import make_folder
from imgsvc.jobs.lanes.messages import Outcome, Rendered, Task
from imgsvc.service import server
from imgsvc.service.app import create_app
from imgsvc.service.assembly import Doubles
from imgsvc.settings import Settings
from imgsvc.storage.thread_visit import in_thread
from tests.support.pace import Pace

LOOK_SECONDS = 0.005


Made = dict[tuple[str, ...], tuple[Rendered, Path]]  # by digest and what was done before, and where the files are


class PreparedLane(testing.InlineLane):
    """`pace` and `made` are shared by all lanes."""

    def __init__(self, name: str, pace: Pace, made: Made, folder: Path) -> None:
        super().__init__(name)
        self._pace, self._made, self._folder = pace, made, folder

    async def run(self, task: Task) -> Outcome:
        key = (task.sha256, *task.done)
        if key not in self._made:
            outcome = await super().run(task)
            if isinstance(outcome, Rendered):
                kept = self._folder / f"{self.name}-{len(self._made)}"
                shutil.copytree(task.folder, kept)
                self._made[key] = outcome, kept
            return outcome
        rendered, kept = self._made[key]
        await self._pace.turn()
        await in_thread(self._write, [made.name for made in rendered.variants], kept, task)
        return rendered

    def _write(self, names: list[str], kept: Path, task: Task) -> None:
        make_folder(task)
        for name in names:
            shutil.copyfile(scratch_file(kept, name), scratch_file(Path(task.folder), name))


async def look(found: list[tuple[float, float, float]]) -> None:
    schedstat = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
    while True:
        waited, due = _waited(schedstat), time.monotonic() + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        now = time.monotonic()
        found.append((now, now - due, _waited(schedstat) - waited))


def _waited(schedstat: int) -> float:
    """Seconds in which the thread could have run, and had no processor (the second figure, proc(5) and sched-stats)."""
    return int(os.pread(schedstat, 100, 0).split()[1]) / 1e9


@contextmanager
def measured(file: Path) -> Iterator[list[tuple[float, float, float]]]:
    found: list[tuple[float, float, float]] = []
    try:
        yield found
    finally:
        file.write_text("".join(f"{when} {late} {waited}\n" for when, late, waited in found))


def lanes(folder: Path, places: int, rate: float) -> list[testing.InlineLane]:
    made: Made = {}
    pace = Pace(rate)
    renders = [PreparedLane(f"render-{n}", pace, made, folder) for n in range(places)]
    return [testing.InlineLane("preview"), *renders]


def run(file: Path, given: str) -> None:
    places, rate = given.split() if given else ("0", "1")
    preview = [testing.InlineLane("preview")]
    doubles = Doubles(lanes=lanes(file.with_suffix(".made"), int(places), float(rate)) if given else preview)
    looking: set[asyncio.Task[None]] = set()
    with measured(file) as found:

        def create(settings: Settings) -> Starlette:
            looking.add(asyncio.ensure_future(look(found)))
            return create_app(settings, doubles)

        vars(server)["create_app"] = create
        main()


if __name__ == "__main__":
    run(Path(os.environ["MEASURED_FILE"]), os.environ.get("MEASURED_LANES", ""))
