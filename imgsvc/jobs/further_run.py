"""One run of a row in `renders`: variants of an image that is completed and stays so."""

from pathlib import Path

import anyio.to_thread

from ..imaging.recipe import SOURCE
from ..storage.base import StorageError
from .failures import IO_ERROR, NOTHING_MOVES, ROW_DAMAGED, SOURCE_MISSING
from .retry import Failure
from .run import Run, RunContext, Source
from .table.further_render import ClaimedRender
from .table.model import Job, StoredVariant


class FurtherRun(Run):
    """A claim of a further render. Its source is the upload, staged or kept, else a stored variant."""

    def __init__(self, claimed: ClaimedRender, context: RunContext) -> None:
        super().__init__(claimed.job, context)
        self.further = claimed.render
        self.is_preview = False
        self.recipe, self.recipe_text, self.done = claimed.render.recipe, claimed.render.recipe_text, (SOURCE,)
        name = f"{self.job.job_id}.further{self.further.render_id}.{self.further.generation}"
        self.scratch, self.checked = context.scratch / name, context.scratch / f"checked-{name}"
        self._fetched = context.scratch / f"source-{name}"
        self.rendered_from: str | None = None  # the variant; None: the upload
        self.log = self.log.bind(render=self.further.render_id, generation=self.further.generation)

    @property
    def scratch_paths(self) -> tuple[Path, ...]:
        return *super().scratch_paths, self._fetched

    @property
    def can_be_split(self) -> bool:
        """Does nothing: no client waits for a further render."""
        return False

    @property
    def is_preemptible(self) -> bool:
        """A person may wait for a focal point, and its crops take a moment."""
        return self.further.kind != "focal"

    async def prepare(self) -> Failure | None:
        if self.job.recipe_damaged:
            return ROW_DAMAGED
        await anyio.to_thread.run_sync(lambda: self._fetched.parent.mkdir(mode=0o700, parents=True, exist_ok=True))
        if self.further.source == "staged" and await anyio.to_thread.run_sync(self._has_upload):
            return None
        if (kept := self.job.kept_source) is not None and await self._fetched_whole(kept):
            self.source = Source(self._fetched, self.job.mime_type, kept.digest, self.job.pixels, kept.size_bytes)
            return None
        return await self._prepare_variant()

    async def _fetched_whole(self, kept: StoredVariant) -> bool:
        try:
            await self.storage.fetch(kept.bucket, kept.key, self._fetched, kept.size_bytes)
        except StorageError as error:
            self.log.warning("source_not_fetched", reason=str(error))
            return False
        return True

    async def _prepare_variant(self) -> Failure | None:
        moving = bool(self.recipe.moving)
        name = largest_whole(self.job, moving=moving)
        if name is None:
            return NOTHING_MOVES if moving else SOURCE_MISSING
        variant = self.job.stored(name)
        try:
            await self.storage.fetch(variant.bucket, variant.key, self._fetched, variant.size_bytes)
        except StorageError as error:
            self.log.warning("source_not_fetched", variant=name, reason=str(error))
            return IO_ERROR
        made = self.job.measured["variants"][name]
        self.rendered_from = name
        self.source = Source(
            self._fetched, f"image/{made['format']}", variant.digest, made["width"] * made["height"], variant.size_bytes
        )
        return None

    def _has_upload(self) -> bool:
        """It is kept for an hour: after that, and in a restored backup, the largest variant has to do."""
        return self.job.staging_path is not None and self.staged.is_file()

    async def _explained(self, failure: Failure) -> Failure:
        found = await super()._explained(failure)
        removed = found.code == "source_missing" and self.rendered_from is None  # its hour was over amid the run
        return IO_ERROR if removed else found


def largest_whole(job: Job, *, moving: bool = False) -> str | None:
    """The largest stored variant that shows the whole picture, or of those in which it moves."""
    made = job.measured.get("variants", {})
    whole = [
        variant.name
        for variant in job.recipe.variants
        if variant.name in job.ready and variant.name in made and not variant.cover
    ]
    if moving:
        whole = [name for name in whole if made[name].get("frames", 1) > 1]
    return max(whole, key=lambda name: made[name]["width"] * made[name]["height"], default=None)
