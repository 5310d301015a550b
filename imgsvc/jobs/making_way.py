"""Work that can wait (an AVIF, rendering again) gives its lane or its memory to an upload that waits."""

from collections.abc import Mapping

import anyio
import structlog

from .lanes.base import Lane
from .lanes.split import SplitLane
from .run import Run
from .side import Side
from .table.job_table import JobTable

log = structlog.get_logger()


class MakingWay:
    """Ends runs that give way. `running`: {run: its lane}, kept by the queue. Set `closed` when the service stops."""

    def __init__(self, table: JobTable, running: Mapping[Run, Lane | SplitLane]) -> None:
        self._table = table
        self._running = running
        self._without_lane: list[Side] = []  # sides that wait for one
        self._changed = anyio.Event()
        self.closed = False

    async def idle_lane(self, side: Side) -> None:
        """Wait for a lane that could take a job. Meanwhile an upload that waits ends a run that gives way."""
        try:
            return side.idle.acquire_nowait()
        except anyio.WouldBlock:
            pass
        self._without_lane.append(side)
        self.look()
        try:
            await side.idle.acquire()
        finally:
            self._without_lane.remove(side)

    def look(self) -> None:
        """Call when an upload may wait, or a lane or memory has become free."""
        if self._without_lane and any(run.gives_way for run in self._running):
            self._changed.set()

    async def run(self) -> None:
        """End runs that give way for sides that wait for a lane, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            for side in tuple(self._without_lane):
                await self._look_for(side)

    async def _look_for(self, side: Side) -> None:
        try:
            if await self._table.next_in(side.queue) and side in self._without_lane:
                self.end_one(side)
        except Exception as error:
            log.error("claim_failed", queue=side.queue, reason=str(error))

    def end_one(self, side: Side) -> None:
        """The latest, which has done least, unless one is ending. It is given back: that counts as no attempt."""
        here = [run for run, lane in self._running.items() if run.gives_way and lane in side.lanes]
        if here and not self.closed and not any(run.requeued for run in here):
            here[-1].requeued = True
            self._running[here[-1]].kill()
