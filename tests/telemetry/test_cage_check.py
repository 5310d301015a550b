"""The cage in health, in the log and in the metrics."""

from dataclasses import replace

import pytest

from imgsvc.jobs.lanes.cage import Posture
from imgsvc.telemetry.cage_check import cage_check, weakest_posture
from imgsvc.testing import InlineLane
from tests.conftest import Starter

WHOLE = Posture("best", 7, seccomp=True, limits=True)
NO_LANDLOCK = replace(WHOLE, landlock_abi=0, absent=("this kernel has no Landlock",))
NO_LIBRARY = replace(WHOLE, seccomp=False, problems=("seccomp: install the package libseccomp2",))


class Caged(InlineLane):
    def __init__(self, posture: Posture | None) -> None:
        super().__init__("render")
        self.posture = posture


@pytest.mark.parametrize(
    ("posture", "status", "detail"),
    [
        (None, "healthy", "no worker has reported its cage yet"),
        (WHOLE, "healthy", "in force: Landlock (ABI 7), seccomp, limits"),
        (NO_LANDLOCK, "healthy", "in force: seccomp, limits; this kernel has no Landlock"),
        (NO_LIBRARY, "degraded", "in force: Landlock (ABI 7), limits; seccomp: install the package libseccomp2"),
        (Posture("off", 0, seccomp=False, limits=False), "healthy", "turned off"),
    ],
)
async def test_only_what_could_be_and_is_not_in_force_degrades(
    posture: Posture | None, status: str, detail: str
) -> None:
    check = await cage_check([Caged(posture)])
    assert (check.status, check.detail) == (status, detail)


def test_the_weakest_lane_counts() -> None:
    assert weakest_posture([Caged(WHOLE), Caged(None), Caged(NO_LIBRARY), Caged(NO_LANDLOCK)]) is NO_LIBRARY


async def test_only_the_operator_sees_the_check(start: Starter) -> None:
    async with start() as s:
        public = (await s.http.get("/api/v1/health")).json()
        shown = (await s.http.get("/api/v1/health", headers=s.operator)).json()
        assert "cage" not in public["checks"] and "workers" in public["checks"]
        assert shown["checks"]["cage"]["status"] == "healthy"
