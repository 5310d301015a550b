"""The end of a run: publishes what was rendered, records the outcome in the row, and removes what is left over."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any

import anyio

from ..storage.base import PlaceTaken, StorageBusy, StorageError
from ..storage.thread_visit import in_thread
from .failures import INTERRUPTED, NOT_STORED, PLACE_TAKEN, UNEXPECTED
from .kept_source import KeptFile, to_keep
from .lanes.messages import Lost, Outcome, Rendered
from .publish import CheckedFiles, publish, withdraw
from .retry import MAX_STARTS, Decision, Failure, decide
from .reuse import Copies, ReuseStatus, status_of
from .run import Run
from .table.model import Job
from .table.writer import DatabaseUnavailable
from .trees import remove_tree

RECORD_AGAIN_SECONDS = 1.0
REMOVE_AGAIN = 5  # attempts to remove the stored files of a deleted job, or to list them for housekeeping


class Settlement:
    """Ends one run, whatever fails.

    `on_preview` is called once the end of a preview is recorded, so that the image's render need not wait until what
    the preview left is removed; `on_taken_over` once the job is completed with its twin's variants, so that a client
    that waits for it need not either.
    """

    def __init__(
        self,
        run: Run,
        on_preview: Callable[[], None] = lambda: None,
        on_taken_over: Callable[[], None] = lambda: None,
    ) -> None:
        self.publishing_since = time.monotonic()  # start of the current attempt to publish and record
        self.retries = False  # the run may be repeated later
        self.preview_ended = False
        self._on_preview = on_preview
        self._on_taken_over = on_taken_over
        self._attempt = anyio.CancelScope()
        self._scratch_removed = False
        self._run = run
        self._context = run.context
        self._table = run.context.table
        self._storage = run.storage
        self._log = run.log

    @property
    def job(self) -> Job:
        return self._run.job

    async def settle(self, outcome: Outcome | Copies) -> None:
        """Publish and record the outcome, then remove the scratch folder, and what machines put into the storage.

        Repeats until the row records the run's end. Errors of the database and a lack of open files are retried
        unchanged; any unexpected error is recorded as a retryable failure.
        """
        try:
            while True:
                self.publishing_since, self._attempt = time.monotonic(), anyio.CancelScope()
                try:
                    with self._attempt:
                        return await self._settle(outcome)
                    outcome = _abandoned(outcome)
                except (DatabaseUnavailable, StorageBusy, sqlite3.Error) as error:
                    self._log.error("job_not_recorded", reason=str(error), again_in_seconds=RECORD_AGAIN_SECONDS)
                except Exception:
                    self._log.exception("run_failed_unexpectedly", again_in_seconds=RECORD_AGAIN_SECONDS)
                    outcome = Copies(self.job, None) if isinstance(outcome, Copies) else UNEXPECTED
                await anyio.sleep(RECORD_AGAIN_SECONDS)
        finally:
            with anyio.CancelScope(shield=True):
                if not self._scratch_removed:
                    await in_thread(self._remove_scratch)
                await self._context.incoming.end(self._run.scratch.name)

    def abandon(self) -> None:
        """Abandon the current attempt to publish and record; the next one records that storing the image failed."""
        self._attempt.cancel()

    def _remove_scratch(self) -> None:
        self._scratch_removed = True
        for path in self._run.scratch_paths:
            if not remove_tree(path):
                self._log.error("scratch_not_removed", name=path.name)  # the next start tries again

    async def _settle(self, outcome: Outcome | Copies) -> None:
        if isinstance(outcome, Copies):
            await self._take_over(outcome)
        elif isinstance(outcome, Lost):
            await self._requeue_lost(outcome)
        elif isinstance(outcome, Failure):
            if self._run.requeued:
                await self._table.requeue(self.job)
            elif self._run.is_preview:
                await self._end_preview("failed", death=outcome.death)
                self._log.info("preview_failed", code=outcome.code)
            else:
                await self._unsuccessful(outcome)
        elif outcome is None:
            await self._end_preview("none")
        else:
            await self._publish(outcome)

    async def _requeue_lost(self, lost: Lost) -> None:
        """Requeue without an attempt. A picture whose machine was lost MAX_STARTS times in a row may be the cause."""
        if not lost.begun:
            await self._table.requeue(self.job)
        elif self.job.starts < MAX_STARTS:
            await self._table.requeue(self.job, started=True)
        elif self._run.is_preview:
            await self._end_preview("failed")
        else:
            await self._unsuccessful(INTERRUPTED)

    async def _publish(self, rendered: Rendered) -> None:
        job = self.job
        keys = {made.name: job.key(made.name) for made in rendered.variants}
        kept = None if self._run.is_preview else to_keep(job, rendered, self._run.staged, self._run.checked)
        try:
            await publish(self._storage, job.storage_bucket, keys, self._files(rendered, kept))
        except StorageBusy:
            raise
        except Exception as error:  # a custom storage may raise anything
            self._log.error("publish_failed", reason=str(error), exc_info=not isinstance(error, StorageError))
            await self._overtaken(keys)
            if self._run.is_preview:
                await self._end_preview("failed")
                return
            await self._unsuccessful(PLACE_TAKEN if isinstance(error, PlaceTaken) else NOT_STORED)
            return
        paths, measured = {**job.paths, **keys}, _measured(job, rendered)
        if self._run.is_preview:
            recorded = await self._table.end_preview(job, "done", paths, measured)
        else:
            forgets = self._forgets_source
            recorded = await self._table.complete(job, paths, measured, kept=kept, forgets_source=forgets)
        if not recorded:
            await self._overtaken(keys)
            return
        self._log.info("preview_ready" if self._run.is_preview else "job_completed", variants=list(keys))
        if self._run.is_preview:
            self._tell_preview()
        if self._run.cleans_source and kept is None:
            self._log.warning("source_not_kept", reason="it is too damaged to be cleaned")
        if not self._run.is_preview:
            await self._remove_source(forgotten=forgets)

    @property
    def _forgets_source(self) -> bool:
        """Whether the commit that completes the job may forget its upload too: nothing else wants that."""
        return not self._context.hold.active and not self.job.recipe.further

    def _files(self, rendered: Rendered, kept: KeptFile | None = None) -> CheckedFiles:
        incoming = self._context.incoming.of(self._run.scratch.name)
        return CheckedFiles(self._run.checked, rendered.variants, incoming, kept)

    async def _take_over(self, copies: Copies) -> None:
        """Complete the job with its twin's variants, or let it be rendered."""
        job = self.job
        try:
            paths, measured, kept = await copies.store(self._storage)
        except Exception as error:  # a custom storage may raise anything
            await self._overtaken({variant.name: job.key(variant.name) for variant in job.recipe.variants})
            await self._decline(status_of(error), str(error))
            return
        forgets = self._forgets_source
        if not await self._table.complete(job, paths, measured, copies.twin, kept, forgets_source=forgets):
            await self._overtaken(paths)
            return
        self._on_taken_over()
        self._log.info("job_completed", twin=copies.twin and copies.twin.image_id)
        self._context.on_reuse("reused")
        await self._remove_source(forgotten=forgets)

    async def _decline(self, status: ReuseStatus, reason: str) -> None:
        if await self._table.decline_twin(self.job, status):
            self._log.info("twin_declined", status=status, reason=reason)
            self._context.on_reuse(status)

    async def _overtaken(self, keys: dict[str, str]) -> None:
        """Remove the files that this run stored if its row was deleted in the meantime, or list them for housekeeping.

        A row that still exists was changed by this run's own record, whose first confirmation was lost, or will be
        recorded again. Repeats while the database refuses, and REMOVE_AGAIN times after an unexpected error.
        """
        left = REMOVE_AGAIN
        while left:
            try:
                if await self._table.job(self.job.job_id, expired=True) is not None:
                    return
                stored = {*keys.values(), *([self.job.source_key] if self.job.source_key else ())}
                if self._context.hold.active or not (await withdraw(self._storage, self.job, stored))[1]:
                    await self._table.files.list_again(self.job, keys)
                return
            except Exception as error:
                left -= not isinstance(error, (DatabaseUnavailable, sqlite3.Error))
                self._log.error("files_not_removed", reason=str(error), keys=list(keys.values()), given_up=not left)
            await anyio.sleep(RECORD_AGAIN_SECONDS)

    async def _end_preview(self, preview: str, *, death: bool = False) -> None:
        await self._table.end_preview(self.job, preview, self.job.paths, self.job.measured, death=death)
        self._tell_preview()

    def _tell_preview(self) -> None:
        self.preview_ended = True
        self._on_preview()

    async def _remove_source(self, *, forgotten: bool = False) -> None:
        """Remove the source after the row has ended. Housekeeping makes up for a failure: the row is final.

        `forgotten`: the row names it no more.
        """
        try:
            if self._context.hold.active or await self._source_wanted():
                return
            await in_thread(self._remove_staged)
            if not forgotten:
                await self._table.files.source_removed(self.job)
        except Exception as error:
            self._log.warning("source_not_removed", reason=str(error))

    def _remove_staged(self) -> None:
        """Remove the upload, and in the same visit to a thread the scratch folder, which the run needs no more."""
        self._run.staged.unlink(missing_ok=True)
        self._remove_scratch()

    async def _source_wanted(self) -> bool:
        """Whether something is still to be made of the upload: of a job that has just ended only a further format."""
        return bool(self.job.recipe.further) and await self._table.files.source_wanted(self.job)

    async def _unsuccessful(self, failure: Failure) -> None:
        job = self.job
        decision = decide(
            failure,
            attempts=job.attempt_count,
            deaths=job.deaths,
            max_attempts=job.max_retries,
            delay_seconds=self._context.limits.retry_delay_seconds,
        )
        self.retries = decision.outcome == "retry"
        if not await self._table.unsuccessful(job, failure, decision):
            return
        self._log.warning(_event(decision), code=failure.code, reason=failure.message, retryable=decision.retryable)
        if decision.outcome == "fail":
            if not decision.retryable:
                await self._remove_source()
            await self._remove_variants()

    async def _remove_variants(self) -> None:
        """Remove everything that this job may have stored. Housekeeping does it if that fails now."""
        if self._context.hold.active:
            return
        try:
            if (await withdraw(self._storage, self.job, _every_key(self.job)))[1]:
                await self._table.files.variants_removed(self.job)
        except Exception as error:
            self._log.warning("variants_not_removed", reason=str(error))


def _abandoned(outcome: Outcome | Copies) -> Outcome | Copies:
    """What to record instead of an outcome whose publishing was abandoned."""
    if isinstance(outcome, Copies):
        return Copies(outcome.job, None)
    return NOT_STORED if isinstance(outcome, Rendered) else outcome


def _event(decision: Decision) -> str:
    return "job_retrying" if decision.outcome == "retry" else "job_failed"


def _every_key(job: Job) -> list[str]:
    return [job.key(one.name) for one in job.recipe.variants] + ([job.source_key] if job.source_key else [])


def _measured(job: Job, rendered: Rendered) -> dict[str, Any]:
    """The measurements for the row: those of this run, added to those of the preview."""
    before = job.measured
    variants = dict(before.get("variants", {}))
    for made in rendered.variants:
        variants[made.name] = made.measured
    found: dict[str, Any] = {**before, "variants": variants}
    if rendered.dominant_colour:
        found["dominant_color"] = rendered.dominant_colour
    if rendered.thumbhash:
        found["thumbhash"] = rendered.thumbhash
    if rendered.width:
        found["original_dimensions"] = {"width": rendered.width, "height": rendered.height}
    if rendered.frames > 1:
        found |= {"animated": True, "frames": rendered.frames}
    return found
