"""The variants in further formats: a row of `renders` that is part of completing a job."""

from collections.abc import Sequence
from dataclasses import replace

import aiosqlite

from ...imaging.limits import avif_bytes
from ...imaging.recipe import Variant
from . import further_changes
from .further_render import NewRender, RenderSource
from .model import Job
from .sql import QUERIES


async def order_formats(db: aiosqlite.Connection, claimed: Job) -> None:
    """Order what a job that has just been completed lacks. Its upload is kept for it."""
    if not claimed.recipe.further:  # a recipe does not change before its job is completed
        return
    row = await (await db.execute(QUERIES["job"], {"job_id": claimed.job_id})).fetchone()
    assert row is not None
    job = Job.of(row)
    missing = [variant for variant in job.recipe.further if variant.name not in job.paths]
    if missing:
        keys = {variant.name: job.key(variant.name) for variant in missing}
        await further_changes.insert(db, job, formats_of(job, missing, "staged"), keys)


def formats_of(job: Job, variants: Sequence[Variant], source: RenderSource) -> NewRender:
    """What is to be made, with an estimate of its memory: of all that the first render took, and the encoder's."""
    made = job.measured.get("variants", {})
    sizes = (made.get(variant.size, {"width": 0, "height": 0}) for variant in variants)
    largest = max((one["width"] * one["height"] for one in sizes), default=0)
    recipe = replace(job.recipe, variants=tuple(variants), further=())
    return NewRender("format", recipe, source, job.render_bytes + avif_bytes(largest))
