"""Preemption: work that can wait (an AVIF, rendering again) leaves its lane or its memory to an upload that waits."""

from collections.abc import Mapping

import anyio
import structlog

from .lanes.base import Lane
from .lanes.split import SplitLane
from .run import Run
from .side import Side
from .table.job_table import JobTable

log = structlog.get_logger()


class Preemption:
    """Ends preemptible runs. `running`: {run: its lane}, kept by the queue. Set `closed` when the service stops."""

    def __init__(self, table: JobTable, running: Mapping[Run, Lane | SplitLane]) -> None:
        self._table = table
        self._running = running
        self._without_lane: list[Side] = []  # sides that wait for one
        self._changed = anyio.Event()
        self.closed = False

    async def idle_lane(self, side: Side) -> None:
        """Wait for a lane that could take a job. Meanwhile an upload that waits ends a preemptible run."""
        try:
            return side.idle.acquire_nowait()
        except anyio.WouldBlock:
            pass
        self._without_lane.append(side)
        self.on_change()
        try:
            await side.idle.acquire()
        finally:
            self._without_lane.remove(side)

    def on_change(self) -> None:
        """Call when an upload may wait, or a lane or memory has become free."""
        if self._without_lane and any(run.is_preemptible for run in self._running):
            self._changed.set()

    async def run(self) -> None:
        """End preemptible runs for sides that wait for a lane, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            for side in tuple(self._without_lane):
                await self._preempt_for(side)

    async def _preempt_for(self, side: Side) -> None:
        try:
            if await self._table.next_in(side.queue) and side in self._without_lane:
                self.preempt_one(side)
        except Exception as error:
            log.error("claim_failed", queue=side.queue, reason=str(error))

    def preempt_one(self, side: Side) -> None:
        """The latest, which has done least, unless one is ending. It is requeued: that counts as no attempt."""
        here = [run for run, lane in self._running.items() if run.is_preemptible and lane in side.lanes]
        if here and not self.closed and not any(run.requeued for run in here):
            here[-1].requeued = True
            self._running[here[-1]].kill()
