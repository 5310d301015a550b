"""Changes of a completed image's row by its owner: JSON merge patch (RFC 7396), in one transaction."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import aiosqlite

from ...imaging.geometry import Point
from ...lazy_dataclass import dataclass
from . import further_changes
from .further_render import NewRender
from .model import Job
from .sql import QUERIES

Check = Callable[[dict[str, Any]], None]  # raises if it refuses the client's metadata as they would be
Crops = Callable[[Job, Point | None], NewRender | None]  # what to render again around a point; None: it has no crops


@dataclass(frozen=True, slots=True)
class Patched:
    """An image's row after a change, its focal point, and the variants that are being rendered again around it."""

    job: Job
    focal: Point | None
    rendering: list[str]


class NotCompleted(Exception):
    """The image's job has not been completed: there is nothing to change yet."""

    def __init__(self, status: str) -> None:
        super().__init__(status)
        self.status = status


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2: null removes a member, an object is merged, anything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


async def patch(
    db: aiosqlite.Connection, job_id: str, changes: Mapping[str, Any], check: Check, crops: Crops
) -> Patched | None:
    """Apply `changes`: the members of the request, of which an absent one changes nothing. None: the image is gone.

    Raises NotCompleted, and what `check` raises.
    """
    row = await (await db.execute(QUERIES["job"], {"job_id": job_id})).fetchone()
    if row is None or (job := Job.of(row)).expired:
        return None
    if job.status != "completed":
        raise NotCompleted(job.status)
    metadata, expires_at = job.client_metadata, job.expires_at
    if "client_metadata" in changes:
        metadata = merged(metadata, changes["client_metadata"]) or {}
        check(metadata)
    if "expires_at" in changes:
        expires_at = changes["expires_at"]
    if "focal" in changes:
        await further_changes.set_focal(db, job, changes["focal"], crops(job, changes["focal"]))
    values = {"job_id": job_id, "client_metadata": json.dumps(metadata), "expires_at": expires_at}
    changed = await (await db.execute(QUERIES["patch"], values)).fetchone()
    return None if changed is None else await _patched(db, Job.of(changed))


async def _patched(db: aiosqlite.Connection, job: Job) -> Patched:
    waiting = await further_changes.waiting_focal(db, job.job_id)
    if waiting is None:
        return Patched(job, job.recipe.focal, [])
    return Patched(job, waiting.recipe.focal, list(dict.fromkeys(variant.size for variant in waiting.recipe.variants)))
