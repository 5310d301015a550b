"""Restarts a failed job on the operator's request."""

import anyio
import anyio.to_thread
import structlog

from ..lazy_dataclass import dataclass
from .housekeeping import Housekeeping
from .queue import Queue
from .staging_area import StagingArea
from .table.job_table import JobTable
from .table.model import Job

log = structlog.get_logger()

SETTLE_SECONDS = 10.0  # for removing the files of the failed run


class NotRetryable(Exception):
    """The job can't be restarted. The message gives the reason in plain words."""


class StillEnding(Exception):
    """The job's last run has not ended yet. The message explains it in plain words."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Restarts jobs. `queue` is None in a stand-alone command, where no job runs."""

    table: JobTable
    staging_area: StagingArea
    housekeeping: Housekeeping
    queue: Queue | None = None

    async def restart(self, job_id: str) -> Job:
        """Restart a failed job with all its attempts and a new turn.

        Raises NotRetryable (the job has not failed, its source is gone, or its leftover files can't be removed now),
        StillEnding or DatabaseUnavailable.
        """
        if self.queue is not None:
            await self._settle(self.queue, job_id)
        async with self.housekeeping.exclusive():
            job = await self._retryable(job_id)
            await self.housekeeping.remove_files(job)
            retried = await self.table.retry(job)
        if retried is None:
            raise NotRetryable("Files of the failed attempt can't be removed from the storage now. Is it working?")
        if self.queue is not None:
            self.queue.wake()
            log.info("job_retried", job_id=job_id, image_id=retried.image_id)
        return retried

    async def _settle(self, queue: Queue, job_id: str) -> None:
        job = await self.table.job(job_id)
        if job is None or job.status != "failed":
            return
        with anyio.move_on_after(SETTLE_SECONDS) as scope:
            await queue.settled(job_id)
        if scope.cancelled_caught:
            raise StillEnding("Files of the failed attempt are still being removed. Try again shortly.")

    async def _retryable(self, job_id: str) -> Job:
        job = await self.table.job(job_id)
        if job is None or job.status != "failed":
            raise NotRetryable(f"Only a failed job can be retried; its status is {job.status if job else 'gone'}.")
        source = self.staging_area.folder / (job.staging_path or "")
        if not job.can_retry or not await anyio.to_thread.run_sync(source.is_file):
            raise NotRetryable("The uploaded bytes of this job are not kept any more.")
        if self.housekeeping.holds_back and job.paths:
            raise NotRetryable("A backup is running, which needs the files of the failed attempt. Try again after it.")
        return job
