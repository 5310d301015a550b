"""The cage of the workers, as health, metrics and the log show it."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..jobs.lanes.cage import Posture, in_words
from .health import Check

CAGE = "cage"  # name of the check, which only the operator sees


class Caged(Protocol):
    """A lane, or its state."""

    @property
    def posture(self) -> Posture | None: ...


def weakest_posture(lanes: Iterable[Caged]) -> Posture | None:
    """The posture of the lane with the fewest walls; None while none is known."""
    known = [lane.posture for lane in lanes if lane.posture is not None]
    return min(known, key=lambda one: (one.limits, one.seccomp, one.landlock_abi, -len(one.problems)), default=None)


async def cage_check(lanes: Sequence[Caged]) -> Check:
    """Degraded if the system has a wall that could not be put in force; a system without one is none the worse."""
    posture = weakest_posture(lanes)
    if posture is None:
        return Check(status="healthy", detail="no worker has reported its cage yet")
    missing = (*posture.problems, *posture.absent)
    detail = "turned off" if posture.mode == "off" else "; ".join((f"in force: {in_words(posture)}", *missing))
    return Check(status="degraded" if posture.problems else "healthy", detail=detail)
