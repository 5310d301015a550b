"""Sets the point that the crops of a completed image are made around."""

from dataclasses import dataclass, replace

import structlog

from ..imaging.geometry import Point
from ..imaging.header import Header
from ..imaging.limits import render_bytes
from ..imaging.recipe import Recipe
from .further_run import largest_whole
from .queue import Queue
from .table.further_render import NewRender
from .table.job_table import JobTable
from .table.model import Job

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FocalPoint:
    table: JobTable
    queue: Queue

    async def set(self, job: Job, point: Point | None) -> list[str] | None:
        """Have the crops made anew around `point`; None: around the centre of attention.

        Returns the variants that are to be made, whose old files are served meanwhile. A further point replaces one
        that is still waiting. None: the image is not completed, or was deleted. Raises DatabaseUnavailable.
        """
        recipe = replace(job.recipe, focal=point)
        if not recipe.crops:
            return [] if await self.table.further.set_focal(job, point) else None
        crops = replace(recipe, variants=recipe.crops)
        render = await self.table.further.order(job, NewRender("focal", crops, "variant", _estimate(job, crops)))
        if render is None:
            return None
        self.queue.wake()
        log.info("focal_point_set", image_id=job.image_id, job_id=job.job_id, variants=sorted(render.keys))
        return [variant.name for variant in crops.variants]


def _estimate(job: Job, recipe: Recipe) -> int:
    """Estimated peak memory in bytes, from a variant of the image."""
    name = largest_whole(job)
    if name is None:
        return job.render_bytes
    made = job.measured["variants"][name]
    jpeg = made["format"] == "jpeg"
    header = Header(
        made["format"].upper(), made["width"], made["height"], 3 if jpeg else 4, whole=jpeg, coefficients=3 * jpeg
    )
    return render_bytes(header, recipe)
