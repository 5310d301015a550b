"""A lane with its worker process, alone, and one small task for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imgsvc.imaging.recipe import Recipe, Variant
from imgsvc.jobs.lanes.process import EndReason, ProcessLane

SMALL = Recipe((Variant("small", 64, 80, 2),), max_pixels=10_000_000, max_frames=10)


@asynccontextmanager
async def lane(ended: list[EndReason]) -> AsyncIterator[ProcessLane]:
    """One that is not started; why its workers ended is added to the list."""
    one = ProcessLane("render", nice=0, jobs_per_process=100, ended=ended.append)
    try:
        yield one
    finally:
        await one.close()


@asynccontextmanager
async def started(ended: list[EndReason]) -> AsyncIterator[ProcessLane]:
    async with lane(ended) as one:
        await one.start()
        yield one
