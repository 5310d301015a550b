"""Deletes an image."""

from dataclasses import dataclass

import anyio
import structlog

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
        deleted = await self.table.delete(job)
        if deleted is None:
            return None
        with anyio.CancelScope(shield=True):
            with anyio.move_on_after(END_RUN_SECONDS):
                await self.queue.cancel(job.job_id)
            self.completions.notify(job.job_id)
            removed = await self.housekeeping.remove_files(deleted)
        log.info("image_deleted", image_id=job.image_id, job_id=job.job_id, files_removed=removed)
        return removed
