"""Deletes an image, on request or because it has expired."""

import anyio
import structlog

from ..lazy_dataclass import dataclass
from .completions import Completions
from .housekeeping import Housekeeping
from .queue import Queue
from .table.job_table import JobTable
from .table.model import Job

log = structlog.get_logger()

END_RUN_SECONDS = 10.0  # a worker is killed within milliseconds; publishing may take longer


@dataclass(frozen=True, slots=True)
class Deletion:
    table: JobTable
    queue: Queue
    completions: Completions
    housekeeping: Housekeeping

    async def delete(self, job: Job) -> int | None:
        """Mark the row, end the job's run, wake the requests that wait for it, and remove the files.

        Returns the number of files; None if the image was already deleted. Once the row is marked, the rest is done
        even if the caller is cancelled, and housekeeping makes up for failures. Raises DatabaseUnavailable.
        """
        with self.housekeeping.deletion(job.job_id):
            return await self._finish(await self.table.delete(job), "image_deleted")

    async def expire(self, job: Job) -> int | None:
        """The same for an image that has expired; None too if it has not (any more). Raises DatabaseUnavailable."""
        with self.housekeeping.deletion(job.job_id):
            return await self._finish(await self.table.expire(job), "image_expired")

    async def end_run(self, job: Job) -> None:
        """End the run of a job whose row is marked, and wake the requests that wait for it."""
        with anyio.move_on_after(END_RUN_SECONDS):
            await self.queue.cancel(job.job_id)
        self.completions.notify(job.job_id)

    async def _finish(self, job: Job | None, event: str) -> int | None:
        if job is None:
            return None
        with anyio.CancelScope(shield=True):
            await self.end_run(job)
            removed = await self.housekeeping.remove_files(job)
        log.info(event, image_id=job.image_id, job_id=job.job_id, files_removed=removed)
        return removed
