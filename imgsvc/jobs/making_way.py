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
        self.closed = False

    async def idle_lane(self, side: Side) -> None:
        """Wait for a lane that could take a job. Meanwhile an upload that waits ends a run that gives way."""
        try:
            return side.idle.acquire_nowait()
        except anyio.WouldBlock:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch, side)
                await side.idle.acquire()
                group.cancel_scope.cancel()

    async def _watch(self, side: Side) -> None:
        while True:
            changed = side.changed
            try:
                if any(run.gives_way for run in self._running) and await self._table.next_in(side.queue):
                    self.end_one(side)
            except Exception as error:
                log.error("claim_failed", queue=side.queue, reason=str(error))
            await changed.wait()

    def end_one(self, side: Side) -> None:
        """The latest, which has done least, unless one is ending. It is given back: that counts as no attempt."""
        here = [run for run, lane in self._running.items() if run.gives_way and lane in side.lanes]
        if here and not self.closed and not any(run.requeued for run in here):
            here[-1].requeued = True
            self._running[here[-1]].kill()
