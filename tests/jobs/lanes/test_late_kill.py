"""A lane that is killed or shut while its process is still being launched: there is nothing to kill yet."""

from pathlib import Path

import anyio
import pytest

from fixtures import make
from imgsvc.jobs.lanes.cage import Mode
from imgsvc.jobs.lanes.messages import Outcome, Rendered
from imgsvc.jobs.lanes.pool import Launcher, Pool
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.jobs.retry import Failure
from tests.support.lanes import SMALL
from tests.support.render_task import render_task
from tests.support.speed import within


class LateLauncher(Launcher):
    """Holds the process that it has launched back until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.launched, self.go = anyio.Event(), anyio.Event()

    async def launch(self, niceness: int, cage: Mode) -> Pool:
        found = await super().launch(niceness, cage)
        self.launched.set()
        await self.go.wait()
        return found


@pytest.mark.parametrize("end", ["kill", "shut"])
async def test_end_while_the_process_is_launched_ends_the_task(tmp_path: Path, end: str) -> None:
    task = render_task(tmp_path, make.jpeg(320, 200), SMALL)
    launcher = LateLauncher()
    lane = ProcessLane("render", nice=0, jobs_per_process=3, launcher=launcher)
    outcomes: list[Outcome] = []

    async def run() -> None:
        outcomes.append(await lane.run(task))

    try:
        with within(20):
            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await launcher.launched.wait()
                getattr(lane, end)()
                launcher.go.set()
            assert isinstance(outcomes[0], Failure)
            assert lane.jobs_done == 0 and lane.alive is (end == "kill")
            if end == "kill":
                assert isinstance(await lane.run(task), Rendered)
    finally:
        await lane.close()
        launcher.close()
