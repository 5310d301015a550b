"""The tasks that render variants of many images again: their rows, and the changes of these.

A task looks at the images in order of acceptance. Each page is one transaction: it orders what the page needs, as rows
in `renders`, and moves the cursor, so that a task that was cut short goes on where it was.
"""

import json
from collections.abc import Callable
from typing import Literal, Self
from uuid import uuid4

import aiosqlite

from ...imaging.recipe import Recipe
from ...lazy_dataclass import dataclass
from . import further_changes
from .database import Readers
from .events import event
from .further_render import NewRender
from .model import Job, as_text, now
from .sql import QUERIES
from .writer import Writer

PAGE = 100  # rows in one transaction
MOST_WAITING = 200  # of its renders: what is ordered later sees later changes
LISTED = 100  # findings in a report

TaskState = Literal["running", "done", "cancelled"]


@dataclass(frozen=True, slots=True)
class RenderTask:
    """A row. `after_row` of `upto_row` rows have been looked at; the other figures count images."""

    task_id: str
    state: TaskState
    recipe: Recipe
    variants: frozenset[str] | None
    bucket: str | None
    missing_only: bool
    after_row: int
    upto_row: int
    examined: int
    ordered: int
    rendered: int
    from_variant: int
    failed: int
    began_at: str
    ended_at: str | None

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        found = dict(zip(row.keys(), row, strict=True))
        names = found.pop("variants")
        return cls(
            recipe=Recipe.from_json(found.pop("recipe")),
            variants=None if names is None else frozenset(json.loads(names)),
            missing_only=bool(found.pop("missing_only")),
            **found,
        )


@dataclass(frozen=True, slots=True)
class RenderFinding:
    image_id: str
    kind: Literal["failed", "from_variant"]
    reason: str | None


@dataclass(frozen=True, slots=True)
class RenderReport:
    """A task, how many of its renders have not ended, and its first findings."""

    task: RenderTask
    waiting: int
    findings: list[RenderFinding]


@dataclass(frozen=True, slots=True)
class NewTask:
    """What to render again: all variants or those named, of all images or those of a bucket."""

    recipe: Recipe
    variants: frozenset[str] | None
    bucket: str | None
    missing_only: bool


@dataclass(frozen=True, slots=True)
class Planned:
    """What an image needs, None: nothing; and why something that it lacks can't be made, in plain words."""

    render: NewRender | None
    refused: str | None = None


Plan = Callable[[Job, RenderTask], Planned]
Step = Literal["none", "ordered", "waiting"]


class RenderTaskRunning(Exception):
    """A task is running already."""


class RenderTasks:
    """Methods that change something raise DatabaseUnavailable; reads raise sqlite3.Error."""

    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers = readers
        self._write = writer.write

    async def begin(self, new: NewTask) -> None:
        """Raises RenderTaskRunning."""
        await self._write(lambda db: begin(db, new))

    async def latest(self) -> RenderReport | None:
        rows = await self._readers.fetch("latest_render_task", {})
        if not rows:
            return None
        task = RenderTask.of(rows[0])
        values = {"task_id": task.task_id, "limit": LISTED}
        waiting = (await self._readers.fetch("renders_of_task", values))[0]["waiting"]
        found = await self._readers.fetch("render_findings", values)
        return RenderReport(task, waiting, [RenderFinding(*row) for row in found])

    async def is_running(self) -> bool:
        return bool(await self._readers.fetch("running_render_task", {}))

    async def advance(self, plan: Plan) -> Step:
        """Look at the next page of the running task, if there is one, unless enough of its renders wait."""
        return await self._write(lambda db: advance(db, plan))

    async def cancel(self) -> None:
        """End the running task; what it has made stays."""
        await self._write(cancel, frees=True)


async def begin(db: aiosqlite.Connection, new: NewTask) -> None:
    if await _running(db) is not None:
        raise RenderTaskRunning
    for query in ("drop_render_findings", "drop_render_tasks"):
        await db.execute(QUERIES[query])
    values = {
        "task_id": str(uuid4()),
        "recipe": new.recipe.to_json(),
        "variants": None if new.variants is None else json.dumps(sorted(new.variants)),
        "bucket": new.bucket,
        "missing_only": int(new.missing_only),
        "began_at": as_text(now()),
    }
    await db.execute(QUERIES["insert_render_task"], values)
    details = {name: values[name] for name in ("task_id", "variants", "bucket")}
    await event(db, "render_task_begun", None, None, details)


async def _running(db: aiosqlite.Connection) -> RenderTask | None:
    row = await (await db.execute(QUERIES["running_render_task"])).fetchone()
    return None if row is None else RenderTask.of(row)


async def advance(db: aiosqlite.Connection, plan: Plan) -> Step:
    task = await _running(db)
    if task is None:
        return "none"
    (counted,) = await db.execute_fetchall(QUERIES["renders_of_task"], {"task_id": task.task_id})
    if counted["waiting"] >= MOST_WAITING:
        return "waiting"
    if task.after_row >= task.upto_row:
        if counted["waiting"]:
            return "waiting"
        await _end(db, task, "done")
        return "none"
    upto = min(task.after_row + PAGE, task.upto_row)
    values = {"after": task.after_row, "upto": upto, "bucket": task.bucket}
    examined = ordered = 0
    for row in list(await db.execute_fetchall(QUERIES["completed_between"], values)):
        job = Job.of(row)
        examined += 1
        planned = _planned(plan, job, task)
        if planned.render and await further_changes.order(db, job.job_id, planned.render, task.task_id):
            ordered += 1
        if planned.refused:
            await further_changes.refuse(db, task.task_id, job.image_id, planned.refused)
    moved = {"task_id": task.task_id, "after": upto, "examined": examined, "ordered": ordered}
    await db.execute(QUERIES["move_render_task"], moved)
    return "ordered"


def _planned(plan: Plan, job: Job, task: RenderTask) -> Planned:
    """A row that is damaged needs nothing that could be made."""
    try:
        return Planned(None) if job.recipe_damaged or job.expired else plan(job, task)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Planned(None)


async def cancel(db: aiosqlite.Connection) -> None:
    task = await _running(db)
    if task is None:
        return
    await further_changes.drop_of_task(db, task.task_id)
    await _end(db, task, "cancelled")


async def _end(db: aiosqlite.Connection, task: RenderTask, state: TaskState) -> None:
    values = {"task_id": task.task_id, "state": state, "now": as_text(now())}
    await db.execute(QUERIES["end_render_task"], values)
    details = {"task_id": task.task_id, "rendered": task.rendered, "failed": task.failed}
    await event(db, f"render_task_{state}", None, None, details)
