"""The changes of `renders` and `retired_keys`. Each is a function on the writer's connection, in one transaction.

The order of a further render: (1) the row with the keys that will be put; (2) the files, durable; (3) one change that
names the new keys in the image's row, drops this row and retires the replaced keys; (4) the removal of what is retired.
A kill before (3) leaves the old files served, and the new ones named by the row, which the next start runs again.
"""

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import aiosqlite

from ...imaging.geometry import Point
from ...imaging.recipe import SOURCE, Recipe
from ...lazy_dataclass import dataclass
from ...storage.base import LOCAL
from ...storage.keys import variant_key
from ..retry import MAX_STARTS, Decision, Failure, exclusive
from .events import event
from .further_render import PRIORITY, ClaimedRender, FurtherRender, NewRender
from .model import Job, as_text, now
from .sql import QUERIES

REDIRECTED = timedelta(days=30)  # how long a replaced URL leads to the new one
IN_FLIGHT = timedelta(minutes=1)  # a replaced local file stays for the answers that are being sent


@dataclass(frozen=True, slots=True)
class MadeFiles:
    """What a run has put: {variant: measurements}, and how long a presigned URL of a replaced file may live."""

    measured: dict[str, dict[str, Any]]
    presigned: timedelta


async def order(
    db: aiosqlite.Connection, job_id: str, new: NewRender, task_id: str | None = None
) -> FurtherRender | None:
    """Insert a row under new keys. None: the image is not completed.

    It replaces earlier rows of the same kind, and takes the variants that it makes over from those of further formats.
    `task_id`: of the task that orders it.
    """
    row = await (await db.execute(QUERIES["raise_revision"], {"job_id": job_id})).fetchone()
    if row is None:
        return None
    job = Job.of(row)
    names = {variant.name for variant in new.recipe.variants}
    for earlier in await _rows_of(db, job_id):
        if earlier.kind == new.kind:
            await _retire(db, job, earlier)
        elif earlier.kind == "format" and earlier.state != "failed" and names & set(earlier.keys):
            await _leave_out(db, job, earlier, names)
    return await insert(db, job, new, _keys(job, new.recipe), task_id)


def _keys(job: Job, recipe: Recipe) -> dict[str, str]:
    """The keys of the row's present revision."""
    return {
        variant.name: variant_key(variant.size, job.image_id, revision=job.revision, ending=variant.format)
        for variant in recipe.variants
    }


async def _leave_out(db: aiosqlite.Connection, job: Job, earlier: FurtherRender, names: Collection[str]) -> None:
    """Take variants out of a row that is not done, because another row makes them: the rest gets keys of its own.

    Its run may have put files under the keys of before, which are listed for removal.
    """
    await _retire(db, job, earlier)
    left = [variant for variant in earlier.recipe.variants if variant.name not in names]
    if left:
        recipe = replace(earlier.recipe, variants=tuple(left))
        new = NewRender(earlier.kind, recipe, earlier.source, earlier.render_bytes)
        await insert(db, job, new, _keys(job, recipe))


async def insert(
    db: aiosqlite.Connection, job: Job, new: NewRender, keys: dict[str, str], task_id: str | None = None
) -> FurtherRender:
    """Insert a row with these keys, none of which may have been used for other bytes."""
    values = {
        "job_id": job.job_id,
        "image_id": job.image_id,
        "kind": new.kind,
        "recipe": new.recipe.to_json(),
        "keys": json.dumps(keys),
        "source": new.source,
        "backend": job.storage_backend,
        "priority": PRIORITY[new.kind],
        "render_bytes": new.render_bytes,
        "created_at": as_text(now()),
        "task_id": task_id,
    }
    row = await (await db.execute(QUERIES["insert_render"], values)).fetchone()
    assert row is not None
    render = FurtherRender.of(row)
    await _event(db, "render_ordered", job, render)
    return render


async def set_focal(db: aiosqlite.Connection, job: Job, focal: Point | None, crops: NewRender | None) -> None:
    """Of a completed image: at once if it has no crops, else with the crops that are made around it."""
    if crops is not None:
        await order(db, job.job_id, crops)
        return
    await db.execute(QUERIES["set_focal"], {"job_id": job.job_id, "focal": focal and json.dumps(focal)})


async def waiting_focal(db: aiosqlite.Connection, job_id: str) -> FurtherRender | None:
    """The crops that are being made around another point."""
    row = await (await db.execute(QUERIES["waiting_focal"], {"job_id": job_id})).fetchone()
    return None if row is None else FurtherRender.of(row)


async def claim(
    db: aiosqlite.Connection, free_bytes: int, nothing_running: bool, held: bool
) -> tuple[ClaimedRender | None, bool]:
    """Claim the next row, unless an upload waits or memory is short; returns too whether any row waits."""
    row = await (await db.execute(QUERIES["next_render"], {"held": int(held)})).fetchone()
    if row is None:
        return None, await (await db.execute(QUERIES["any_render_waiting"])).fetchone() is not None
    waiting = FurtherRender.of(row)
    found = await (await db.execute(QUERIES["job"], {"job_id": waiting.job_id})).fetchone()
    assert found is not None, "a deletion drops the image's rows"
    job = Job.of(found)
    alone = exclusive(deaths=waiting.deaths, starts=waiting.starts)
    if not nothing_running and (alone or row["render_bytes"] > free_bytes):
        return None, True
    if waiting.backend != job.storage_backend and waiting.generation:  # the image was moved after an earlier run
        await _retire_keys(db, job, waiting, backend=waiting.backend)
    await _refresh(db, job, waiting)
    values = {"render_id": waiting.render_id, "backend": job.storage_backend}
    claimed = await (await db.execute(QUERIES["claim_render"], values)).fetchone()
    assert claimed is not None
    return ClaimedRender(FurtherRender.of(claimed), job, row["render_bytes"]), True


async def _refresh(db: aiosqlite.Connection, job: Job, waiting: FurtherRender) -> None:
    """Since it was ordered the image may have got another focal point, or other crops: they are other bytes."""
    recipe = waiting.recipe_now(job)
    if (recipe.variants, recipe.focal) == (waiting.recipe.variants, waiting.recipe.focal):
        return
    await _retire_keys(db, job, waiting, backend=waiting.backend)
    row = await (await db.execute(QUERIES["raise_revision"], {"job_id": job.job_id})).fetchone()
    assert row is not None, "the row of a further render's image is completed"
    keys = json.dumps(_keys(Job.of(row), recipe))
    values = {"render_id": waiting.render_id, "recipe": recipe.to_json(), "keys": keys}
    await db.execute(QUERIES["refresh_render"], values)


async def finish(db: aiosqlite.Connection, render: FurtherRender, made: MadeFiles) -> Job | None:
    """Name the new files in the image's row, drop this row, and retire what is replaced.

    Returns the row as it was before; None if either row has changed, been replaced or been deleted.
    """
    if not await _is_current(db, render):
        return None
    row = await (await db.execute(QUERIES["job"], {"job_id": render.job_id})).fetchone()
    if row is None:
        return None
    job = Job.of(row)
    if render.kind == "again" and render.recipe.crops and render.recipe.focal != job.recipe.focal:
        return None  # the point was set meanwhile: it is claimed again
    recipe = job.recipe.replaced_by(render.recipe)
    measured = {**job.measured, "variants": {**job.measured.get("variants", {}), **made.measured}}
    values = {
        "job_id": job.job_id,
        "backend": render.backend,
        "processed_paths": json.dumps({**job.paths, **render.keys}),
        "processing_metadata": json.dumps(measured),
        "recipe": recipe.to_json(),
    }
    if (await db.execute(QUERIES["record_render"], values)).rowcount == 0:
        return None  # it was moved: the row is claimed again
    await db.execute(QUERIES["drop_render"], {"render_id": render.render_id})
    if recipe != job.recipe:  # no later upload takes over another recipe's files
        await db.execute(QUERIES["drop_source"], {"job_id": job.job_id})
    stays = IN_FLIGHT if render.backend == LOCAL else max(IN_FLIGHT, made.presigned)
    replaced = {name: job.paths[name] for name in render.keys if name in job.paths}
    for name, key in replaced.items():
        size = job.measured["variants"][name]["size_bytes"]
        await _retire_key(db, job, render.backend, name, key, now() + stays, now() + REDIRECTED, size)
    await _event(db, "rendered_again", job, render)
    if render.task_id is not None:
        await _count(db, render.task_id, render.image_id, made)
    return job


async def _count(db: aiosqlite.Connection, task_id: str, image_id: str, made: MadeFiles) -> None:
    """Tell the task of a render what it was made from."""
    origin = next((one["rendered_from"] for one in made.measured.values() if "rendered_from" in one), None)
    await db.execute(QUERIES["count_rendered"], {"task_id": task_id, "from_variant": int(origin is not None)})
    if origin is not None:
        await _find(db, task_id, image_id, "from_variant", origin)


async def _find(db: aiosqlite.Connection, task_id: str, image_id: str, kind: str, reason: str) -> None:
    values = {"task_id": task_id, "image_id": image_id, "kind": kind, "reason": reason}
    await db.execute(QUERIES["insert_render_finding"], values)


async def refuse(db: aiosqlite.Connection, task_id: str, image_id: str, reason: str) -> None:
    """Tell a task that something can't be made of an image, which keeps what it has."""
    await db.execute(QUERIES["count_not_rendered"], {"task_id": task_id})
    await _find(db, task_id, image_id, "failed", reason)


async def drop_of_task(db: aiosqlite.Connection, task_id: str) -> None:
    """A task was cancelled: its rows go, and what they may have put is removed."""
    for row in list(await db.execute_fetchall(QUERIES["waiting_of_task"], {"task_id": task_id})):
        render = FurtherRender.of(row)
        found = await (await db.execute(QUERIES["job"], {"job_id": render.job_id})).fetchone()
        assert found is not None, "a deletion drops the image's rows"
        await _retire(db, Job.of(found), render)


async def overtaken(db: aiosqlite.Connection, job: Job, render: FurtherRender) -> None:
    """End a run whose change could not be recorded: it runs again where the image was moved to; otherwise its files,
    which may have been put after an earlier removal, are listed again."""
    if await _is_current(db, render):
        await ended(db, "requeue_render", job, render, "render_requeued")
        return
    row = await (await db.execute(QUERIES["job"], {"job_id": job.job_id})).fetchone()
    await _retire_keys(db, Job.of(row) if row else job, render, backend=render.backend, deleted=row is None)


async def ended(
    db: aiosqlite.Connection, query: str, job: Job, render: FurtherRender, kind: str, **values: Any
) -> bool:
    """Run a fenced update, and write its event only if it changed the row."""
    fence = {"render_id": render.render_id, "generation": render.generation}
    if (await db.execute(QUERIES[query], fence | values)).rowcount == 0:
        return False
    details = {"code": values["code"]} if "code" in values else {}
    await _event(db, kind, job, render, **details)
    return True


async def again(
    db: aiosqlite.Connection, job: Job, render: FurtherRender, failure: Failure, decision: Decision
) -> bool:
    delay = decision.delay_seconds
    due = as_text(now() + timedelta(seconds=delay)) if delay else None
    values = {"code": failure.code, "message": failure.message, "death": int(failure.death), "next_attempt_at": due}
    return await ended(db, "render_again", job, render, "render_retrying", **values)


async def fail(db: aiosqlite.Connection, job: Job, render: FurtherRender, failure: Failure) -> bool:
    """Give up: the image keeps what it has. The row stays and says why; its files go."""
    values = {"code": failure.code, "message": failure.message, "death": int(failure.death)}
    if not await ended(db, "fail_render", job, render, "render_failed", **values):
        return False
    await _retire_keys(db, job, render, backend=render.backend)
    if render.task_id is not None:
        await refuse(db, render.task_id, render.image_id, failure.message)
    return True


async def replay(db: aiosqlite.Connection) -> tuple[int, int]:
    """At start: let what was running run again. Returns the numbers of requeued and of abandoned rows."""
    replayed = given_up = 0
    await db.execute(QUERIES["release_all_renders"])
    for row in list(await db.execute_fetchall(QUERIES["interrupted_renders"])):
        render = FurtherRender.of(row)
        found = await (await db.execute(QUERIES["job"], {"job_id": render.job_id})).fetchone()
        assert found is not None, "a deletion drops the image's rows"
        if render.starts < MAX_STARTS:
            await db.execute(QUERIES["replay_render"], {"render_id": render.render_id})
            await _event(db, "render_replayed", Job.of(found), render)
            replayed += 1
            continue
        failure = Failure("interrupted", f"The service ended {render.starts} times while it worked on this image.")
        given_up += await fail(db, Job.of(found), render, failure)
    return replayed, given_up


async def delete_of(db: aiosqlite.Connection, job: Job) -> None:
    """Part of the deletion of an image: drop its rows, and list what they may have put, and what was replaced."""
    for render in await _rows_of(db, job.job_id):
        await _retire_keys(db, job, render, backend=render.backend)
    await db.execute(QUERIES["drop_renders_of"], {"job_id": job.job_id})
    await db.execute(QUERIES["retire_all_of"], {"job_id": job.job_id, "now": as_text(now())})


async def drop_sources(db: aiosqlite.Connection, limit: int) -> tuple[int, int]:
    """Forget the kept sources of so many images, and list their files for removal. Returns the images and the bytes."""
    images = dropped = 0
    for row in list(await db.execute_fetchall(QUERIES["kept_sources"], {"limit": limit})):
        job = Job.of(row)
        await db.execute(QUERIES["drop_kept_source"], {"job_id": job.job_id})
        for backend in filter(None, (job.storage_backend, job.also_in)):
            size = (job.source_bytes or 0) if backend == job.storage_backend else 0
            await _retire_key(db, job, backend, SOURCE, str(job.source_key), now(), None, size)
        facts = {"trace_id": job.trace_id, "bytes": job.source_bytes}
        await event(db, "source_dropped", job.image_id, job.job_id, facts)
        images, dropped = images + 1, dropped + (job.source_bytes or 0)
    return images, dropped


async def _rows_of(db: aiosqlite.Connection, job_id: str) -> list[FurtherRender]:
    return [FurtherRender.of(row) for row in await db.execute_fetchall(QUERIES["renders_of"], {"job_id": job_id})]


async def _is_current(db: aiosqlite.Connection, render: FurtherRender) -> bool:
    values = {"render_id": render.render_id, "generation": render.generation}
    return await (await db.execute(QUERIES["current_render"], values)).fetchone() is not None


async def _retire(db: aiosqlite.Connection, job: Job, render: FurtherRender) -> None:
    """Drop a row, and list the keys that it may have put."""
    await _retire_keys(db, job, render, backend=render.backend)
    await db.execute(QUERIES["drop_render"], {"render_id": render.render_id})


async def _retire_keys(
    db: aiosqlite.Connection, job: Job, render: FurtherRender, *, backend: str, deleted: bool = False
) -> None:
    """List the keys of a row, which were never given out, for removal now.

    But for those that the image's row names: the confirmation of a change that named them may have been lost.
    """
    named = () if deleted or job.storage_backend != backend else job.paths.values()
    for name, key in render.keys.items():
        if key not in named:
            await _retire_key(db, job, backend, name, key, now(), None)


async def _retire_key(
    db: aiosqlite.Connection,
    job: Job,
    backend: str,
    variant: str,
    key: str,
    remove_at: datetime,
    redirect_until: datetime | None,
    size_bytes: int = 0,
) -> None:
    """`size_bytes` counts for the user until the file is gone; 0: the file may never have been written."""
    values = {
        "job_id": job.job_id,
        "backend": backend,
        "bucket": job.storage_bucket,
        "key": key,
        "variant": variant,
        "remove_at": as_text(remove_at),
        "size_bytes": size_bytes,
        "redirect_until": as_text(redirect_until) if redirect_until else None,
    }
    await db.execute(QUERIES["retire_key"], values)


async def _event(db: aiosqlite.Connection, kind: str, job: Job, render: FurtherRender, **details: Any) -> None:
    facts = {
        "trace_id": job.trace_id,
        "render": render.render_id,
        "generation": render.generation,
        "kind": render.kind,
        "variants": sorted(render.keys),
        **details,
    }
    await event(db, kind, job.image_id, job.job_id, facts)
