"""One run of one job, from its claim to the row that records its end."""

import errno
import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog

from ..imaging.error_messages import GENERAL
from ..storage.base import PlaceTaken, Storage, StorageBusy, StorageError
from .deletion_hold import DeletionHold
from .lanes.process import Lane, Outcome, Rendered, Task
from .publish import publish, withdraw
from .rendered_files import Untrue, check_answer, copy_checked
from .retry import Decision, Failure, decide
from .table.job_table import JobTable
from .table.model import Job
from .table.writer import DatabaseUnavailable
from .trees import remove_tree

log = structlog.get_logger()

RECORD_AGAIN_SECONDS = 1.0
REMOVE_AGAIN = 5  # attempts to remove the stored files of a deleted job, or to list them for housekeeping
# At least ten times what the most expensive file on the preview lane takes (`imaging.limits.has_cheap_preview`): 0.1 s.
PREVIEW_SECONDS = 2.0
PREVIEW_SECONDS_PER_MEGAPIXEL = 0.04

OnVariant = Callable[[str, float], None]  # called with (variant name, seconds spent) for each variant written

CANCELLED = Failure("cancelled", "The image was deleted.")  # never recorded: the row's fencing token has changed
CRASHED = Failure("worker_crashed", "The worker process broke while it processed this image.", death=True)
UNEXPECTED = Failure("internal_error", "Processing failed unexpectedly.")
NOT_STORED = Failure("storage_error", "The image could not be stored.")
PLACE_TAKEN = Failure("place_taken", "Another image's file is in the way of this one.")
IO_ERROR = Failure("io_error", GENERAL["io_error"])
SOURCE_MISSING = Failure("source_missing", GENERAL["source_missing"])
ROW_DAMAGED = Failure("row_damaged", "What was to be made of this image can't be read any more.")
SOURCE_DAMAGED = Failure("source_damaged", GENERAL["source_damaged"])


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a run, and the delay before a retry, all in seconds."""

    time_limit_seconds: float
    time_limit_seconds_per_megapixel: float
    retry_delay_seconds: float


class Run:
    """One claim of one job. Discarded once the row has reached its next status."""

    def __init__(
        self,
        job: Job,
        table: JobTable,
        storage: Storage,
        staging: Path,
        scratch: Path,
        limits: Limits,
        on_variant: OnVariant,
        hold: DeletionHold,
    ) -> None:
        self.job = job
        self.is_preview = job.preview == "wanted"
        self.requeued = False  # the service is stopping: this does not count as an attempt
        self.cancelled = False  # the image was deleted
        self.over = anyio.Event()  # set once nothing of this run is active
        self.reserved_bytes = 0
        self.began = 0.0  # when it started on its lane, in monotonic seconds
        self.publishing_since = 0.0  # start of the current attempt to publish and record, in monotonic seconds; 0: none
        self._attempt = anyio.CancelScope()
        self._table = table
        self._storage = storage
        self._source = staging / (job.staging_path or job.job_id)
        self._scratch = scratch / f"{job.job_id}.{job.run}"
        self._checked = scratch / f"checked-{job.job_id}.{job.run}"  # copies, whose path no worker knows
        self._limits = limits
        self._on_variant = on_variant
        self._hold = hold
        self._log = log.bind(job_id=job.job_id, image_id=job.image_id, trace_id=job.trace_id, run=job.run)

    async def render(self, lane: Lane) -> Outcome:
        """Render on the lane, then compare the answer with the task and with the files on disk."""
        try:
            await anyio.to_thread.run_sync(lambda: self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True))
            if self.cancelled:
                return CANCELLED
            if self.job.recipe_damaged:
                return ROW_DAMAGED
            outcome = await lane.run(self._task())
            if isinstance(outcome, Failure):
                return await self._explained(outcome)
            await self._check(outcome)
        except Untrue as lie:
            self._log.error("worker_answer_mismatch", lane=lane.name, reason=str(lie))
            lane.kill()
            return CRASHED
        except OSError as error:
            self._log.error("io_error", reason=error.strerror)
            return IO_ERROR
        if isinstance(outcome, Rendered):
            self._tell_made(outcome)
        return outcome

    async def _explained(self, failure: Failure) -> Failure:
        """A worker's verdict on the source is final, so it is checked against the staged bytes first."""
        if failure.code not in ("source_missing", "source_damaged"):
            return failure
        found = await anyio.to_thread.run_sync(_look_at, self._source, self.job.sha256)
        if found.code != failure.code:
            self._log.warning("source_checked", reported=failure.code, found=found.code)
        return found

    async def _check(self, outcome: Rendered | None) -> None:
        """Check and copy the result. Raises Untrue, or OSError if a file is gone or can't be copied."""
        if outcome is None:
            if not self.is_preview:
                raise Untrue("only a preview may be left out")
            return
        check_answer(outcome, self.job.recipe, self._expected(), self.job.pixels)
        while True:
            try:
                await anyio.to_thread.run_sync(copy_checked, self._scratch, outcome.variants, self._checked)
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._log.error("run_waits_for_files", reason=error.strerror, again_in_seconds=RECORD_AGAIN_SECONDS)
            await anyio.to_thread.run_sync(remove_tree, self._checked)
            await anyio.sleep(RECORD_AGAIN_SECONDS)

    def _expected(self) -> set[str]:
        """The names of the variants that this run must make."""
        recipe = self.job.recipe
        if self.is_preview:
            return {recipe.preview.name}
        return {variant.name for variant in recipe.variants} - set(self._done())

    def _done(self) -> tuple[str, ...]:
        return tuple(self.job.paths) if self.job.preview == "done" else ()

    def _tell_made(self, rendered: Rendered) -> None:
        for made in rendered.variants:
            self._on_variant(made.name, made.seconds)

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
            done=self._done(),
            time_limit=self._time_limit(),
            sha256=job.sha256,
            memory_ceiling=self.reserved_bytes,
        )

    def _time_limit(self) -> float:
        """The time limit in seconds. It is short for previews: a slow one would delay all others."""
        megapixels, limits = self.job.pixels / 1e6, self._limits
        limit = limits.time_limit_seconds + limits.time_limit_seconds_per_megapixel * megapixels
        return min(limit, PREVIEW_SECONDS + PREVIEW_SECONDS_PER_MEGAPIXEL * megapixels) if self.is_preview else limit

    async def settle(self, outcome: Outcome) -> None:
        """Publish and record the outcome, then remove the scratch folder.

        Repeats until the row records the run's end. Errors of the database and a lack of open files are retried
        unchanged; any unexpected error is recorded as a retryable failure.
        """
        try:
            while True:
                self.publishing_since, self._attempt = time.monotonic(), anyio.CancelScope()
                try:
                    with self._attempt:
                        return await self._settle(outcome)
                    outcome = NOT_STORED if isinstance(outcome, Rendered) else outcome  # publishing was abandoned
                except (DatabaseUnavailable, StorageBusy, sqlite3.Error) as error:
                    self._log.error("job_not_recorded", reason=str(error), again_in_seconds=RECORD_AGAIN_SECONDS)
                except Exception:
                    self._log.exception("run_failed_unexpectedly", again_in_seconds=RECORD_AGAIN_SECONDS)
                    outcome = UNEXPECTED
                await anyio.sleep(RECORD_AGAIN_SECONDS)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._remove_scratch)

    def abandon(self) -> None:
        """Abandon the current attempt to publish and record; the next one records that storing the image failed."""
        self._attempt.cancel()

    def _remove_scratch(self) -> None:
        for folder in (self._scratch, self._checked):
            if not remove_tree(folder):
                self._log.error("scratch_not_removed", folder=folder.name)  # the next start tries again

    async def _settle(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failure):
            if self.requeued:
                await self._table.requeue(self.job)
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
        try:
            keys = await publish(self._storage, job, rendered.variants, self._checked)
        except StorageBusy:
            raise
        except Exception as error:  # a storage may be somebody's own, and raise anything
            self._log.error("publish_failed", reason=str(error), exc_info=not isinstance(error, StorageError))
            await self._overtaken({name: job.key(name) for name in names})
            if self.is_preview:
                await self._end_preview("failed")
                return
            await self._unsuccessful(PLACE_TAKEN if isinstance(error, PlaceTaken) else NOT_STORED)
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
        """Remove the files that this run stored if its row was deleted in the meantime, or list them for housekeeping.

        A row that still exists was changed by this run's own record, whose first confirmation was lost, or will be
        recorded again. Repeats while the database refuses, and REMOVE_AGAIN times after an unexpected error.
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
        """Remove the source after the row has ended. Housekeeping makes up for a failure: the row is final."""
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
        """Remove everything that this job may have stored. Housekeeping does it if that fails now."""
        if self._hold.active:
            return
        try:
            if (await withdraw(self._storage, self.job, _every_key(self.job)))[1]:
                await self._table.variants_removed(self.job)
        except Exception as error:
            self._log.warning("variants_not_removed", reason=str(error))


def _look_at(source: Path, sha256: str) -> Failure:
    """Check a staged file's bytes. Returns IO_ERROR if they are intact, or can't be read now."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:  # noqa: PTH123
            sound = stat.S_ISREG(os.fstat(descriptor).st_mode)
            sound = sound and hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except FileNotFoundError:
        return SOURCE_MISSING
    except OSError:
        return IO_ERROR
    return IO_ERROR if sound else SOURCE_DAMAGED


def _event(decision: Decision) -> str:
    return "job_retrying" if decision.outcome == "retry" else "job_failed"


def _every_key(job: Job) -> list[str]:
    return [job.key(variant.name) for variant in job.recipe.variants]


def _measured(job: Job, rendered: Rendered) -> dict[str, Any]:
    """The measurements for the row: those of this run, added to those of the preview."""
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
