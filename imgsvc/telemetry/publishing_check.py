"""Health check of publishing: the age of the oldest file that is being stored."""

import time

from ..jobs.queue import PUBLISHING, Queue
from .health import Check

SLOW_SECONDS = 30.0
STUCK_SECONDS = 120.0


async def publishing_check(queue: Queue) -> Check:
    """Degraded while one file takes long; unhealthy once it is stuck, or if no further file can be published."""
    ages = sorted((time.monotonic() - one.publishing_since for one in queue.publishing()), reverse=True)
    if not ages or ages[0] <= SLOW_SECONDS:
        return Check(status="healthy", detail=f"{len(ages)} being stored")
    stuck = len(ages) >= PUBLISHING and ages[-1] > SLOW_SECONDS
    detail = f"{len(ages)} being stored, the oldest for {ages[0]:.0f} seconds"
    return Check(status="unhealthy" if stuck or ages[0] > STUCK_SECONDS else "degraded", detail=detail)
