"""Changes of completed images by their owners: metadata, expiry, and the point that crops are made around."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..imaging.geometry import Point
from ..imaging.header import Header
from ..imaging.limits import render_bytes
from ..imaging.recipe import Recipe
from ..lazy_dataclass import dataclass
from .further_run import largest_whole
from .queue import Queue
from .table.further_render import NewRender
from .table.job_table import JobTable
from .table.model import Job
from .table.patches import Check, Patched


@dataclass(frozen=True, slots=True)
class ImageChanges:
    table: JobTable
    queue: Queue

    async def make(self, job: Job, changes: Mapping[str, Any], check: Check) -> Patched | None:
        """Apply the members of a merge patch in one transaction; None: the image is gone.

        Crops around a new `focal` are made later, and their old files are served meanwhile; a further point replaces
        one that is still waiting. Raises NotCompleted, DatabaseUnavailable, and what `check` raises.
        """
        patched = await self.table.patch(job, changes, check, crops_around)
        if patched is not None and patched.rendering:
            self.queue.wake()
        return patched


def crops_around(job: Job, point: Point | None) -> NewRender | None:
    """The crops of an image, to be made around `point` (None: the centre of attention); None: it has no crops."""
    recipe = replace(job.recipe, focal=point)
    if not recipe.crops:
        return None
    crops = replace(recipe, variants=recipe.crops, further=())
    return NewRender("focal", crops, "variant", estimate(job, crops))


def estimate(job: Job, recipe: Recipe) -> int:
    """Estimated peak memory in bytes, from the kept source or a variant of the image."""
    name = largest_whole(job, moving=bool(recipe.moving)) or largest_whole(job)
    if name is None:
        return job.render_bytes
    if job.kept_source is not None:
        return max(job.render_bytes, _from_variant(job, name, recipe), _playing(job, recipe))
    return _from_variant(job, name, recipe)


def _playing(job: Job, recipe: Recipe) -> int:
    """For an upload that moves, though it did not when it was accepted; 0 without a variant in which it does."""
    if not recipe.moving:
        return 0
    size, form = job.measured["original_dimensions"], job.mime_type.removeprefix("image/").upper()
    return render_bytes(Header(form, size["width"], size["height"], 4, indirect=form == "GIF"), recipe)


def _from_variant(job: Job, name: str, recipe: Recipe) -> int:
    made = job.measured["variants"][name]
    jpeg = made["format"] == "jpeg"
    header = Header(
        made["format"].upper(), made["width"], made["height"], 3 if jpeg else 4, whole=jpeg, coefficients=3 * jpeg
    )
    return render_bytes(header, recipe)
