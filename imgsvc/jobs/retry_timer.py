"""The timer that requeues jobs whose next attempt is due."""

import time
from collections.abc import Callable
from datetime import datetime

import anyio
import structlog

from .table.job_table import JobTable
from .table.model import now

log = structlog.get_logger()

AGAIN_SECONDS = 1.0  # pause after the database refused
LONGEST_SLEEP_SECONDS = 30.0  # the wall clock may have been set in between


class RetryTimer:
    """`delay_seconds` is the longest time ahead that a retry is ever set."""

    def __init__(self, table: JobTable, delay_seconds: float, on_released: Callable[[], None]) -> None:
        self._table = table
        self._delay_seconds = delay_seconds
        self._on_released = on_released
        self._changed = anyio.Event()
        self._next: tuple[datetime, float] | None = None  # next retry: wall clock, monotonic

    def look_again(self) -> None:
        """Call when a retry may have been scheduled."""
        self._changed.set()

    async def run(self) -> None:
        """Requeue jobs when their time has come, until cancelled."""
        while True:
            try:
                await self._release_next()
            except Exception as error:
                log.error("retries_not_requeued", reason=str(error))
                await anyio.sleep(AGAIN_SECONDS)

    async def _release_next(self) -> None:
        """Wait until the next retry is due, or until an earlier one is scheduled, and requeue the jobs that are due.

        The time waited counts by the monotonic clock too: setting the wall clock back postpones nothing.
        """
        self._changed = anyio.Event()
        due = await self._table.next_due()
        pause = self._until(due) if due else LONGEST_SLEEP_SECONDS
        with anyio.move_on_after(min(pause, LONGEST_SLEEP_SECONDS)):
            await self._changed.wait()
            return
        if await self._table.release_due(due if pause <= LONGEST_SLEEP_SECONDS else None):
            self._on_released()

    def _until(self, due: datetime) -> float:
        """Seconds until `due`, by the clock that gives less. No retry is ever set further ahead than its delay."""
        moment = time.monotonic()
        at = moment + min((due - now()).total_seconds(), self._delay_seconds)
        if self._next is not None and self._next[0] == due:
            at = min(at, self._next[1])
        self._next = (due, at)
        return max(0.0, at - moment)
