"""The setting [workers] cage in a service with real workers."""

from functools import partialmethod
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from imgsvc.jobs.lanes import pool, warm
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.service import runner
from tests.conftest import with_workers
from tests.support.traffic import told, value

NO_LANDLOCK = "this kernel has no Landlock, or it is not enabled at boot (lsm=landlock)"


@pytest.fixture
def no_landlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold Landlock down in every warm process."""
    held_down = partialmethod(warm.Launch.__init__, landlock_abi_at_most=0)
    monkeypatch.setattr(warm.Launch, "__init__", held_down)


async def test_worker_does_not_start_without_what_is_required(no_landlock: None) -> None:
    launcher = pool.Launcher()
    lane = ProcessLane("render", nice=0, jobs_per_process=1, cage="require", launcher=launcher)
    with pytest.raises(ChildProcessError) as refused:
        await lane.start()
    assert str(refused.value) == f"[workers] cage is require, but {NO_LANDLOCK}"
    await lane.close()
    launcher.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait longer for workers that start slowly: without them nothing is known of the cage yet."""
    monkeypatch.setattr(runner, "WARM_SECONDS", 30)


async def test_best_goes_on_without_landlock_and_says_so(
    tmp_path: Path, no_landlock: None, patient: None, photo: bytes
) -> None:
    with capture_logs() as lines:
        async with with_workers(tmp_path, workers={"count": 1, "cage": "best"}) as s:
            await s.completed(photo)
            check = s.state.telemetry.health.checks()["cage"]
            assert (check.status, check.detail) == ("healthy", f"in force: seccomp, limits; {NO_LANDLOCK}")
            now = await told(s)
            walls = [value(now, "worker_cage_in_force", wall=wall) for wall in ("landlock", "seccomp", "limits")]
            assert walls == [0, 1, 1] and value(now, "worker_cage_faults") == 0
    (line,) = [line for line in lines if line["event"] == "cage"]
    assert line == {
        "event": "cage",
        "log_level": "warning",
        "mode": "best",
        "in_force": "seccomp, limits",
        "missing": NO_LANDLOCK,
    }
