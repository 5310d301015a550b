"""One run of one job, from its claim to the row that says how it ended."""

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog

from ..storage.base import Storage, StorageBusy, StorageError
from .hold import Hold
from .model import Job
from .publish import publish, withdraw
from .retry import Decision, Failure, decide
from .table import Table
from .workers import Lane, Outcome, Rendered, Task
from .writer import DatabaseUnavailable

log = structlog.get_logger()

RECORD_AGAIN_SECONDS = 1.0
REMOVE_AGAIN = 5  # times that what a deleted job has put is tried to be removed, or listed for housekeeping
# Ten and more times what the dearest file on the preview lane takes here (`imaging.limits.has_cheap_preview`): 0.1 s.
PREVIEW_SECONDS = 2.0
PREVIEW_SECONDS_PER_MEGAPIXEL = 0.04

Made = Callable[[str, float], None]  # told the name of a variant, and the seconds that making it took

CANCELLED = Failure("cancelled", "The image was deleted.")  # never recorded: the row's fence has moved on
CRASHED = Failure("worker_crashed", "The worker process broke while it processed this image.", death=True)
UNEXPECTED = Failure("internal_error", "Processing failed unexpectedly.")
NOT_STORED = Failure("storage_error", "The image could not be stored.")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take: seconds, and what is tried again."""

    time_limit_seconds: float
    time_limit_seconds_per_megapixel: float
    retry_delay_seconds: float


class Run:
    """Built for each claim; nothing of it outlives the row's next state."""

    def __init__(
        self,
        job: Job,
        table: Table,
        storage: Storage,
        staging: Path,
        scratch: Path,
        limits: Limits,
        made: Made,
        hold: Hold,
    ) -> None:
        self.job = job
        self.is_preview = job.preview == "wanted"
        self.given_back = False  # the service is stopping: it costs no attempt
        self.cancelled = False  # the image was deleted
        self.over = anyio.Event()  # nothing of this run is going on any more
        self.reserved_bytes = 0
        self.began = 0.0  # on its lane, in monotonic seconds
        self._table = table
        self._storage = storage
        self._source = staging / (job.staging_path or job.job_id)
        self._scratch = scratch / f"{job.job_id}.{job.run}"
        self._limits = limits
        self._made = made
        self._hold = hold
        self._log = log.bind(job_id=job.job_id, image_id=job.image_id, trace_id=job.trace_id, run=job.run)

    async def render(self, lane: Lane) -> Outcome:
        await anyio.to_thread.run_sync(lambda: self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True))
        if self.cancelled:
            return CANCELLED
        outcome = await lane.run(self._task())
        if outcome is None and not self.is_preview:
            self._log.error("worker_answer_unusable", lane=lane.name, reason="only a preview may be left out")
            lane.kill()
            return CRASHED
        if isinstance(outcome, Rendered):
            self._tell_made(outcome)
        return outcome

    def _tell_made(self, rendered: Rendered) -> None:
        known = {variant.name for variant in self.job.recipe.variants}
        for made in rendered.variants:
            if made.name in known:
                self._made(made.name, made.seconds)

    def _task(self) -> Task:
        job = self.job
        return Task(
            kind="preview" if self.is_preview else "render",
            id=f"{job.job_id}.{job.run}",
            job_id=job.job_id,
            trace_id=job.trace_id,
            source=str(self._source.absolute()),
            mime=job.mime_type,
            recipe=job.recipe_text,
            folder=str(self._scratch.absolute()),
            done=tuple(job.paths) if job.preview == "done" else (),
            time_limit=self._time_limit(),
            sha256=job.sha256,
            memory_ceiling=self.reserved_bytes,
        )

    def _time_limit(self) -> float:
        """Seconds. A preview that is not quick after all must not keep everybody's waiting."""
        megapixels, limits = self.job.pixels / 1e6, self._limits
        limit = limits.time_limit_seconds + limits.time_limit_seconds_per_megapixel * megapixels
        return min(limit, PREVIEW_SECONDS + PREVIEW_SECONDS_PER_MEGAPIXEL * megapixels) if self.is_preview else limit

    async def settle(self, outcome: Outcome) -> None:
        """Publish and record, then remove the scratch folder.

        Whatever goes wrong, the row is tried until it says how the run ended: what has to do with the database or
        with open files is done again as it was, anything unforeseen is recorded as a failure that is tried again.
        """
        try:
            while True:
                try:
                    return await self._settle(outcome)
                except (DatabaseUnavailable, StorageBusy, sqlite3.Error) as error:
                    self._log.error("job_not_recorded", reason=str(error), again_in_seconds=RECORD_AGAIN_SECONDS)
                except Exception:
                    self._log.exception("run_broke", again_in_seconds=RECORD_AGAIN_SECONDS)
                    outcome = UNEXPECTED
                await anyio.sleep(RECORD_AGAIN_SECONDS)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(self._scratch, ignore_errors=True))

    async def _settle(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failure):
            if self.given_back:
                await self._table.give_back(self.job)
            elif self.is_preview:
                await self._end_preview("failed", death=outcome.death)
                self._log.info("preview_failed", code=outcome.code)
            else:
                await self._unsuccessful(outcome)
        elif outcome is None:
            await self._end_preview("none")
        else:
            await self._publish(outcome)

    async def _publish(self, rendered: Rendered) -> None:
        job = self.job
        names = [made.name for made in rendered.variants]
        if not set(names) <= {variant.name for variant in job.recipe.variants}:
            await self._unsuccessful(Failure("worker_crashed", "The worker answered with variants nobody asked for."))
            return
        try:
            keys = await publish(self._storage, job, names, self._scratch)
        except StorageBusy:
            raise
        except Exception as error:  # a storage may be somebody's own, and raise anything
            self._log.error("publish_failed", reason=str(error), exc_info=not isinstance(error, StorageError))
            await self._overtaken({name: job.key(name) for name in names})
            if self.is_preview:
                await self._end_preview("failed")
                return
            await self._unsuccessful(NOT_STORED)
            return
        paths, measured = {**job.paths, **keys}, _measured(job, rendered)
        if self.is_preview:
            recorded = await self._table.end_preview(job, "done", paths, measured)
        else:
            recorded = await self._table.complete(job, paths, measured)
        if not recorded:
            await self._overtaken(keys)
            return
        self._log.info("preview_ready" if self.is_preview else "job_completed", variants=names)
        if not self.is_preview:
            await self._remove_source()

    async def _overtaken(self, keys: dict[str, str]) -> None:
        """Remove what this run put if its row was deleted meanwhile, or list it for housekeeping.

        A row that is still there has moved on by this very record, whose first answer was lost, or is yet to be
        recorded. Tried for as long as the database refuses, and REMOVE_AGAIN times after anything unforeseen.
        """
        left = REMOVE_AGAIN
        while left:
            try:
                if await self._table.job(self.job.job_id) is not None:
                    return
                if self._hold.active or not (await withdraw(self._storage, self.job, keys.values()))[1]:
                    await self._table.list_again(self.job, keys)
                return
            except Exception as error:
                left -= not isinstance(error, (DatabaseUnavailable, sqlite3.Error))
                self._log.error("files_not_removed", reason=str(error), keys=list(keys.values()), given_up=not left)
            await anyio.sleep(RECORD_AGAIN_SECONDS)

    async def _end_preview(self, preview: str, *, death: bool = False) -> None:
        await self._table.end_preview(self.job, preview, self.job.paths, self.job.measured, death=death)

    async def _remove_source(self) -> None:
        """After the row has ended. What fails here is housekeeping's: it must not make the record be tried again."""
        if self._hold.active:
            return
        try:
            await anyio.to_thread.run_sync(lambda: self._source.unlink(missing_ok=True))
            await self._table.source_removed(self.job)
        except Exception as error:
            self._log.warning("source_not_removed", reason=str(error))

    async def _unsuccessful(self, failure: Failure) -> None:
        job = self.job
        decision = decide(
            failure,
            attempts=job.attempt_count,
            deaths=job.deaths,
            max_attempts=job.max_retries,
            delay_seconds=self._limits.retry_delay_seconds,
        )
        if not await self._table.unsuccessful(job, failure, decision):
            return
        self._log.warning(_event(decision), code=failure.code, reason=failure.message, retryable=decision.retryable)
        if decision.outcome == "fail":
            if not decision.retryable:
                await self._remove_source()
            await self._remove_variants()

    async def _remove_variants(self) -> None:
        """All that this job may have put; like the source, left to housekeeping if it can't be done now."""
        if self._hold.active:
            return
        try:
            if (await withdraw(self._storage, self.job, _every_key(self.job)))[1]:
                await self._table.variants_removed(self.job)
        except Exception as error:
            self._log.warning("variants_not_removed", reason=str(error))


def _event(decision: Decision) -> str:
    return "job_retrying" if decision.outcome == "retry" else "job_failed"


def _every_key(job: Job) -> list[str]:
    return [job.key(variant.name) for variant in job.recipe.variants]


def _measured(job: Job, rendered: Rendered) -> dict[str, Any]:
    """What the row remembers: found by this run, added to what the preview found."""
    before = job.measured
    variants = dict(before.get("variants", {}))
    for made in rendered.variants:
        variants[made.name] = made.model_dump(exclude={"name", "seconds"})
    found: dict[str, Any] = {**before, "variants": variants}
    if rendered.dominant_colour:
        found["dominant_color"] = rendered.dominant_colour
    if rendered.width:
        found["original_dimensions"] = {"width": rendered.width, "height": rendered.height}
    if rendered.frames > 1:
        found |= {"animated": True, "frames": rendered.frames}
    return found
