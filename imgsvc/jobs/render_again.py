"""Makes variants anew of many images: what each needs, and the loop that orders it page by page.

The renders are rows in `renders`, claimed while no upload waits. Nothing is ordered while a backup holds removals: each
replaced file would have to be kept for it.
"""

import sqlite3
from dataclasses import replace

import anyio
import structlog

from .deletion_hold import DeletionHold
from .image_changes import estimate
from .queue import Queue
from .table.further_render import NewRender
from .table.further_table import FurtherTable
from .table.model import Job
from .table.render_tasks import NewTask, RenderReport, RenderTask, RenderTasks
from .table.writer import DatabaseUnavailable

log = structlog.get_logger()

LOOK_SECONDS = 0.25  # between two looks at a task whose renders wait
AGAIN_SECONDS = 5.0  # after the database refused


class RenderAgain:
    def __init__(self, tasks: RenderTasks, further: FurtherTable, queue: Queue, hold: DeletionHold) -> None:
        self._tasks = tasks
        self._further = further
        self._queue = queue
        self._hold = hold
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
                step = await self._tasks.advance(plan)
                self._further.wake()
                self._queue.wake()  # also for what waited for the end of a backup
                if step == "ordered":
                    continue
            await anyio.sleep(LOOK_SECONDS)


def plan(job: Job, task: RenderTask) -> NewRender | None:
    """What an image lacks of the task's variants, or has with other settings; None: nothing."""
    now = {variant.name: variant for variant in (*job.recipe.variants, *job.recipe.further)}
    frames, can_move = job.recipe.frames, job.kept_source is not None
    recipe = task.recipe.playing(frames) if frames > 1 else task.recipe.stills()
    wanted = tuple(
        variant
        for variant in (*recipe.variants, *recipe.further)
        if (can_move or not variant.animated)  # no variant is as good a source of an animation as the upload
        and (task.variants is None or variant.size in task.variants)
        and (variant.name not in job.paths or (not task.missing_only and now.get(variant.name) != variant))
    )
    if not wanted:
        return None
    pixels = max(task.recipe.max_pixels, job.pixels)
    recipe = replace(recipe, variants=wanted, further=(), max_pixels=pixels, focal=job.recipe.focal, keep_source="none")
    return NewRender("again", recipe, "variant", estimate(job, recipe))
