"""A second look at the queue: finds jobs that no part of the service works on, says so, and puts them right.

Nothing here should ever happen. Each kind of fault is logged as an error with the job's id and counted, so that it is
seen and mended at its cause; meanwhile the job goes on.
"""

import time
from collections.abc import Callable
from typing import Literal

import anyio
import structlog

from .queue import Queue
from .table.job_table import JobTable

log = structlog.get_logger()

# no_run: `processing` in the table, and no run in this process. not_claimed: next in line while its lanes idle.
# publishing: on its way into storage for longer than that can take.
JobFault = Literal["no_run", "not_claimed", "publishing"]

EVERY_SECONDS = 30.0
LOOKS = 4  # in a row that must find the same job waiting beside idle lanes: minutes
PAGE = 500  # rows of one query
PAGES = 10  # of one look: with more jobs under way, the next look goes on
PUBLISHING_SECONDS = 600.0  # of one attempt; what `publish` allows grows with the bytes and stays below


class Watchdog:
    """`found` is called with each fault. A fault counts only when looks that follow each other agree on job and run."""

    def __init__(self, table: JobTable, queue: Queue, found: Callable[[JobFault], None]) -> None:
        self._table = table
        self._queue = queue
        self._found = found
        self._after = ""
        self._suspects: set[tuple[str, int]] = set()  # without a run at the last look
        self._waiting: dict[str, tuple[str, int]] = {}  # queue: its next job, and for how many looks it has been that

    async def run(self) -> None:
        """Look for ever. A look that fails (the database refuses) is made again at the next time."""
        while True:
            await anyio.sleep(EVERY_SECONDS)
            try:
                await self.look()
            except Exception as error:
                log.warning("watchdog_failed", reason=str(error))

    async def look(self) -> None:
        """Look once. Raises sqlite3.Error or DatabaseUnavailable."""
        if self._queue.stopping:
            return
        self._end_publishing()
        await self._wake_queues()
        await self._recover_lost()

    async def _recover_lost(self) -> None:
        """Hand out again what is `processing` without a run here. Fenced by the run, and only at the second look."""
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
                self._queue.wake()

    def _end_publishing(self) -> None:
        for run in self._queue.publishing():
            if time.monotonic() - run.publishing_since > PUBLISHING_SECONDS:
                self._report("publishing", run.job.job_id)
                run.abandon()

    def _report(self, fault: JobFault, job_id: str) -> None:
        self._found(fault)
        log.error("job_stuck", fault=fault, job_id=job_id)
