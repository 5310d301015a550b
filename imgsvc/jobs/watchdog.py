"""The watchdog finds jobs that no part of the service works on, reports them, and repairs them.

None of this should ever happen. Each fault is logged as an error with the job's ID and counted, so that its cause can
be fixed; the job itself continues.
"""

import time
from collections.abc import Callable
from typing import Literal

import anyio
import structlog

from .queue import Queue
from .table.job_table import JobTable

log = structlog.get_logger()

# no_run: `processing` in the table without a run here. not_claimed: next in line although its lanes are idle.
# publishing: has been publishing for longer than that can take.
JobFault = Literal["no_run", "not_claimed", "publishing"]

EVERY_SECONDS = 30.0
LOOKS = 4  # consecutive checks, one a minute, that must find the same job waiting although lanes are idle
PAGE = 500  # rows of one query
PAGES = 10  # per check: with more active jobs, the next check continues
PUBLISHING_SECONDS = 600.0  # of one attempt; what `publish` allows grows with the bytes and stays below


class Watchdog:
    """Calls `found` with each fault. A fault counts only if consecutive checks agree on the job and its run."""

    def __init__(self, table: JobTable, queue: Queue, found: Callable[[JobFault], None]) -> None:
        self._table = table
        self._queue = queue
        self._found = found
        self._after = ""
        self._suspects: set[tuple[str, int]] = set()  # had no run at the last check
        self._waiting: dict[str, tuple[str, int]] = {}  # {queue: (its next job, number of checks that found it)}

    async def run(self) -> None:
        """Check periodically, without end. A check that fails (the database refuses) is repeated at the next time."""
        while True:
            await anyio.sleep(EVERY_SECONDS)
            try:
                await self.look()
            except Exception as error:
                log.warning("watchdog_failed", reason=str(error))

    async def look(self) -> None:
        """Check once. Raises sqlite3.Error or DatabaseUnavailable."""
        if self._queue.stopping:
            return
        self._end_publishing()
        await self._wake_queues()
        await self._recover_lost()

    async def _recover_lost(self) -> None:
        """Requeue jobs that are `processing` without a run here, at the second check. Fenced by the run number."""
        for job_id, run in sorted(self._suspects):
            if not self._queue.works_on(job_id, run) and await self._table.recover(job_id, run):
                self._report("no_run", job_id)
                self._queue.wake()
        self._suspects = set()
        for _ in range(PAGES):
            page = await self._table.under_way(self._after, PAGE)
            self._suspects |= {
                (one, run) for one, run, waits in page if not waits and not self._queue.works_on(one, run)
            }
            self._after = page[-1][0] if len(page) == PAGE else ""
            if not self._after:
                return

    async def _wake_queues(self) -> None:
        for name in ("previews", "renders"):
            job_id = await self._table.next_in(name) if self._queue.is_idle(name) else None
            before, looks = self._waiting.get(name, ("", 0))
            looks = looks + 1 if job_id == before else 1
            if job_id is None:
                self._waiting.pop(name, None)
                continue
            self._waiting[name] = (job_id, looks)
            if looks >= LOOKS:
                del self._waiting[name]
                self._report("not_claimed", job_id)
                self._table.look_again()
                self._queue.wake()

    def _end_publishing(self) -> None:
        for settlement in self._queue.publishing():
            if time.monotonic() - settlement.publishing_since > PUBLISHING_SECONDS:
                self._report("publishing", settlement.job.job_id)
                settlement.abandon()

    def _report(self, fault: JobFault, job_id: str) -> None:
        self._found(fault)
        log.error("job_stuck", fault=fault, job_id=job_id)
