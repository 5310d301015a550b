"""Renders variants of many images again: what each needs, and the loop that orders it page by page.

The renders are rows in `renders`, claimed while no upload waits. Nothing is ordered while a backup holds removals: each
replaced file would have to be kept for it.
"""

import sqlite3
from dataclasses import replace
from functools import partial
from math import inf

import anyio
import structlog

from ..imaging.header import Header
from ..imaging.limits import MEGABYTE, settled
from ..imaging.recipe import Recipe
from .deletion_hold import DeletionHold
from .failures import NOTHING_MOVES
from .further_run import largest_whole
from .image_changes import estimate
from .queue import Queue
from .table.further_render import NewRender
from .table.further_table import FurtherTable
from .table.model import Job
from .table.render_tasks import NewTask, Planned, RenderReport, RenderTask, RenderTasks
from .table.writer import DatabaseUnavailable

log = structlog.get_logger()

LOOK_SECONDS = 0.25  # between two looks at a task whose renders wait
AGAIN_SECONDS = 5.0  # after the database refused


class RenderAgain:
    def __init__(
        self, tasks: RenderTasks, further: FurtherTable, queue: Queue, hold: DeletionHold, most_bytes: float = inf
    ) -> None:
        """`most_bytes`: of memory that one render may take."""
        self._tasks = tasks
        self._further = further
        self._queue = queue
        self._hold = hold
        self._plan = partial(plan, most_bytes=most_bytes)
        self._wanted = anyio.Event()

    @property
    def held(self) -> bool:
        """Whether a backup makes tasks wait."""
        return self._hold.active

    async def begin(self, new: NewTask) -> None:
        """Raises RenderTaskRunning or DatabaseUnavailable."""
        await self._tasks.begin(new)
        self._wanted.set()

    async def cancel(self) -> None:
        """End the running task. What it has made stays. Raises DatabaseUnavailable."""
        await self._tasks.cancel()
        self._queue.wake()

    async def latest(self) -> RenderReport | None:
        """The running task, or the last one."""
        return await self._tasks.latest()

    async def run(self) -> None:
        """Work on the task that there is, also one that was ordered before a restart."""
        while True:
            self._wanted = anyio.Event()
            try:
                await self._work()
            except Exception as error:
                unforeseen = not isinstance(error, (DatabaseUnavailable, sqlite3.Error))
                log.error("render_task_waits", reason=str(error), again_in_seconds=AGAIN_SECONDS, exc_info=unforeseen)
                await anyio.sleep(AGAIN_SECONDS)
                continue
            await self._wanted.wait()

    async def _work(self) -> None:
        """Returns when no task is running."""
        while await self._tasks.is_running():
            if not self._hold.active and not self._queue.stopping:
                step = await self._tasks.advance(self._plan)
                self._further.wake()
                self._queue.wake()  # also for what waited for the end of a backup
                if step == "ordered":
                    continue
            await anyio.sleep(LOOK_SECONDS)


def plan(job: Job, task: RenderTask, most_bytes: float = inf) -> Planned:
    """What an image lacks of the task's variants, or has with other settings, with up to `most_bytes` of memory."""
    now = {variant.name: variant for variant in (*job.recipe.variants, *job.recipe.further)}
    recipe = _settled(job, task.recipe)
    wanted = tuple(
        variant
        for variant in (*recipe.variants, *recipe.further)
        if (task.variants is None or variant.size in task.variants)
        and (variant.name not in job.paths or (not task.missing_only and now.get(variant.name) != variant))
    )
    moving = [variant.name for variant in wanted if variant.animated]
    refused = f"{', '.join(moving)}: {NOTHING_MOVES.message}" if moving and not _can_move(job) else None
    if refused:
        wanted = tuple(variant for variant in wanted if not variant.animated)
    if not wanted:
        return Planned(None, refused)
    pixels = max(task.recipe.max_pixels, job.pixels)
    recipe = replace(recipe, variants=wanted, further=(), max_pixels=pixels, focal=job.recipe.focal, keep_source="none")
    needed = estimate(job, recipe)
    if needed > most_bytes:
        return Planned(
            None, f"It would need {needed / MEGABYTE:.0f} MB of memory; {most_bytes / MEGABYTE:.0f} are there."
        )
    return Planned(NewRender("again", recipe, "variant", needed), refused)


def _settled(job: Job, recipe: Recipe) -> Recipe:
    """The task's recipe for this image, by the limits of now. Without its source it begins to move nowhere."""
    frames = job.recipe.frames
    if job.kept_source is not None and frames == 1:
        frames = job.measured.get("frames", 1)
    size = job.measured["original_dimensions"]
    return settled(Header("", size["width"], size["height"], 4, playable=frames), recipe)


def _can_move(job: Job) -> bool:
    """Whether what moves can be made: from the kept source, or from a variant that moves and is the largest of all."""
    if job.kept_source is not None:
        return True
    whole, moving = largest_whole(job), largest_whole(job, moving=True)
    made = job.measured["variants"]
    return moving is not None and made[moving]["width"] == made[whole]["width"]
