"""The queue is the job table. Two channels of capacity 0 (previews, renders) pass each claimed job to an idle lane."""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from math import inf
from typing import TypeVar

import anyio
import structlog
from anyio.abc import ObjectReceiveStream, ObjectSendStream, TaskGroup

from ..lazy_dataclass import dataclass
from .completions import Completions
from .failures import UNEXPECTED
from .further_run import FurtherRun
from .further_settlement import FurtherSettlement
from .lane_memory import LaneMemory
from .lanes.base import Lane
from .lanes.cage import Posture
from .lanes.messages import Outcome
from .lanes.split import Loan, SplitLane
from .preemption import Preemption
from .retry_timer import RetryTimer
from .reuse import Copies
from .run import Run, RunContext
from .settlement import Settlement
from .side import Side
from .table.model import Job, QueueName

log = structlog.get_logger()
T = TypeVar("T")

COPYING = 4  # runs at the same time that take over what another job has
PUBLISHING = 8  # runs that may be publishing while their lanes already take further jobs
LOOK_AGAIN_SECONDS = 1.0  # pause after the database refused a claim
START_AGAIN_SECONDS = 1.0  # pause after a worker could not be started; doubles with each further failure
LONGEST_START_PAUSE_SECONDS = 15.0
RECORDING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class LaneState:
    """What a lane is doing: idle (`job_id` is None), or working on a job for the given number of seconds."""

    name: str
    pid: int | None
    alive: bool
    job_id: str | None
    busy_seconds: float | None
    jobs_done: int
    restarts: int
    posture: Posture | None


class Queue:
    """`sides`: those of this machine and those of others. A queue may have lanes on both, which all take its jobs."""

    def __init__(self, sides: Sequence[Side], runs: RunContext, completions: Completions) -> None:
        self._table = runs.table
        self._runs = runs
        self._completions = completions
        self._sides = tuple(sides)
        self._twins_changed = anyio.Event()
        self._retries = RetryTimer(runs.table, runs.limits.retry_delay_seconds, self.wake)
        self._running: dict[Run, Lane | SplitLane] = {}
        self._preemption = Preemption(runs.table, self._running)
        self._begun: set[Run] = set()  # claimed and not ended yet
        self._settling: set[Settlement] = set()
        self._open_runs = 0  # being claimed, or claimed and not recorded yet
        self._run_ended = anyio.Event()
        local = [lane for side in self._sides for lane in side.lanes if lane.local]
        self._started = {id(lane): anyio.Event() for lane in local}
        self._publishing = anyio.Semaphore(PUBLISHING, fast_acquire=True)
        self._copying = anyio.Semaphore(COPYING, fast_acquire=True)
        self._stopping = self._grace_over = False
        self._scope = anyio.CancelScope()

    def wake(self) -> None:
        """Wake the claim loops that may find a job. Call after every commit that makes a job claimable."""
        for side in self._sides:
            self._wake(side)
        if self._table.twins.may_wait:
            self._twins_changed.set()
            self._twins_changed = anyio.Event()

    def _wake(self, side: Side) -> None:
        if self._table.may_claim(side.queue):
            side.wake()
        self._preemption.on_change()

    @property
    def living_lanes(self) -> int:
        return sum(lane.alive for side in self._sides for lane in side.lanes)

    @property
    def running_tasks(self) -> int:
        return len(self._running)

    @property
    def active_runs(self) -> int:
        """The number of runs that were claimed and have not ended."""
        return len(self._begun)

    @property
    def stopping(self) -> bool:
        return self._stopping

    def works_on(self, job_id: str, run: int) -> bool:
        """Whether this run of the job is active in this process, or about to be."""
        begun = any(one.job.job_id == job_id and one.job.run == run for one in self._begun)
        return begun or self._table.twins.holds(job_id, run)

    def is_idle(self, queue: QueueName) -> bool:
        """Whether a lane of this queue could take a job at once, whatever memory the job needs."""
        return not self._stopping and any(
            not side.memory.running and any(lane.alive for lane in side.lanes)
            for side in self._sides
            if side.queue == queue
        )

    def publishing(self) -> list[Settlement]:
        """Of the runs that have left their lanes and whose end is not recorded yet."""
        return list(self._settling)

    def lanes(self) -> list[LaneState]:
        """All lanes of this machine, the preview lane first, and those of others that have a ticket out."""
        runs = {id(one): run for run, lane in self._running.items() for one in _members(lane)}
        lanes = (lane for side in self._sides for lane in side.lanes)
        return [_state(lane, runs.get(id(lane))) for lane in lanes if lane.local or id(lane) in runs]

    async def run(self) -> None:
        """Pass jobs to the lanes until `stop`."""
        with self._scope:
            async with anyio.create_task_group() as group:
                for side in self._sides:
                    send, receive = anyio.create_memory_object_stream[Run | Loan](0)
                    group.start_soon(self._feed, side, send)
                    for lane in side.lanes:
                        group.start_soon(self._serve, side, lane, receive.clone(), group)
                    receive.close()
                group.start_soon(self._preemption.run)
                group.start_soon(self._retries.run)
                group.start_soon(self._feed_copies, group)

    async def started(self) -> None:
        """Wait until each worker of this machine has been started for the first time, or could not be."""
        for started in self._started.values():
            await started.wait()

    async def cancel(self, job_id: str) -> None:
        """End the run of a deleted job, if there is one; returns once nothing of it is active."""
        runs = [run for run in self._begun if run.job.job_id == job_id]
        for run in runs:
            run.cancelled = True
            if run in self._running:
                self._running[run].kill()
        for run in runs:
            await run.over.wait()

    async def settled(self, job_id: str) -> None:
        """Wait until no run of this job is active and the files of a failed run are removed."""
        for run in [run for run in self._begun if run.job.job_id == job_id]:
            await run.over.wait()

    def hold(self) -> None:
        """Stop claiming jobs: the service is about to stop."""
        self._stopping = self._preemption.closed = True
        self._table.twins.close()
        self.wake()

    async def stop(self, grace_seconds: float, recording_seconds: float = RECORDING_SECONDS) -> None:
        """Stop claiming, let active runs finish within the grace time, and requeue the others."""
        self.hold()
        with anyio.move_on_after(grace_seconds):
            await self._settled()
        self._grace_over = True
        for side in self._sides:
            for lane in side.lanes:
                lane.shut()
        for run in self._running:
            run.requeued = True
        with anyio.move_on_after(recording_seconds):  # if the database refuses, the next start replays the jobs
            await self._settled()
            await self._table.give_back_handed()
        self._scope.cancel()
        for side in self._sides:
            for lane in side.lanes:
                await lane.close()

    async def _settled(self) -> None:
        while self._open_runs:
            self._run_ended = anyio.Event()
            await self._run_ended.wait()

    def _end_run(self) -> None:
        self._open_runs -= 1
        self._run_ended.set()

    async def _feed(self, side: Side, send: ObjectSendStream[Run | Loan]) -> None:
        """Claim only when a lane is idle, so that a stopping service has few jobs to requeue."""
        async with send:
            while True:
                await self._preemption.idle_lane(side)
                run = await self._next(lambda: side.changed, lambda: self._claim(side))
                run.loan = self._borrow(side, run)
                await send.send(run)
                if run.loan:
                    await send.send(run.loan)

    def _borrow(self, side: Side, run: Run) -> Loan | None:
        """A second idle lane for the run, and its memory, while no other job could use them."""
        if side.queue != "renders" or not isinstance(side.memory, LaneMemory):  # or lanes of other machines
            return None
        if not side.idle.value or self._others_wait() or not run.can_be_split:
            return None
        try:
            side.idle.acquire_nowait()
        except anyio.WouldBlock:
            return None
        if not side.memory.reserve_again(run.reserved_bytes):
            side.idle.release()
            return None
        return Loan(run.reserved_bytes)

    def _others_wait(self) -> bool:
        """Whether jobs waited when the run was claimed, joined since, or will once their previews have ended."""
        previews = (side.memory.running for side in self._sides if side.queue == "previews")
        return any(previews) or self._table.may_wait

    async def _feed_copies(self, group: TaskGroup) -> None:
        """Complete the jobs that have a twin. They need no lane, and so wait behind no preview and no render."""
        while True:
            await self._copying.acquire()
            run, copies = await self._next(lambda: self._twins_changed, self._claim_copies)
            group.start_soon(self._finish, run, copies, self._copying)

    async def _next(self, event: Callable[[], anyio.Event], claim: Callable[[], Awaitable[T | None]]) -> T:
        """What `claim` returns, once that is not None: tried again whenever the `event` of that moment is set."""
        while True:
            changed = event()
            pause = inf
            if not self._stopping:
                self._open_runs += 1  # the claim may succeed while `stop` counts
                try:
                    claimed = await claim()
                    if claimed is not None:
                        return claimed
                except Exception as error:
                    log.error("claim_failed", reason=str(error))
                    pause = LOOK_AGAIN_SECONDS
                self._end_run()
            if pause == inf:  # without a scope, which costs as much as the wait
                await changed.wait()
                continue
            with anyio.move_on_after(pause):
                await changed.wait()

    async def _claim(self, side: Side) -> Run | None:
        claimed = await self._table.claim(side.queue, side.memory.largest, nothing_running=side.memory.takes_any)
        if claimed is None and side.queue == "renders":
            return await self._claim_further(side)
        if not isinstance(claimed, Job):
            if claimed is not None:  # it needs more memory
                self._preemption.preempt_one(side)
            return None
        run = self._begin(Run(claimed, self._runs), side.queue)
        run.reserved_bytes = side.memory.reserve(claimed, side.queue)
        return run

    async def _claim_further(self, side: Side) -> Run | None:
        """What is made of a completed image later is claimed only while no upload waits."""
        nothing_running = side.memory.takes_any
        claimed = await self._table.further.claim(
            side.memory.largest, nothing_running=nothing_running, held=self._runs.hold.active
        )
        if claimed is None:
            return None
        run = self._begin(FurtherRun(claimed, self._runs), "further")
        run.reserved_bytes = side.memory.reserve(claimed.as_job, side.queue)
        return run

    async def _claim_copies(self) -> tuple[Run, Copies] | None:
        claimed = await self._table.claim_with_twin()
        if claimed is None:
            return None
        return self._begin(Run(claimed.job, self._runs), "copies"), Copies(claimed.job, claimed.twin)

    def _begin(self, run: Run, queue: str) -> Run:
        job = run.job
        self._begun.add(run)
        log.info("job_processing", queue=queue, job_id=job.job_id, trace_id=job.trace_id, run=job.run)
        return run

    async def _serve(self, side: Side, lane: Lane, receive: ObjectReceiveStream[Run | Loan], group: TaskGroup) -> None:
        async with receive:
            while True:
                await self._warm(lane)
                side.idle.release()
                run = await receive.receive()
                if isinstance(run, Loan):
                    await run.lend(lane)
                    continue
                outcome = await self._render(side, lane, run)
                await self._publishing.acquire()
                group.start_soon(self._finish, run, outcome, self._publishing)

    async def _warm(self, lane: Lane) -> None:
        """Start the lane's worker, repeatedly if necessary: a lane without a live worker takes no job."""
        pause = START_AGAIN_SECONDS
        while True:
            try:
                return await lane.start()
            except Exception as error:
                if not self._stopping:
                    log.error("worker_start_failed", lane=lane.name, reason=str(error), again_in_seconds=pause)
            finally:
                if lane.local:
                    self._started[id(lane)].set()
            await anyio.sleep(pause)
            pause = min(2 * pause, LONGEST_START_PAUSE_SECONDS)

    async def _render(self, side: Side, lane: Lane, run: Run) -> Outcome:
        self._running[run] = lane
        run.began = time.monotonic()
        run.requeued = self._grace_over
        try:
            if run.loan:
                self._running[run] = working = SplitLane(lane, await run.loan.lane(), run.loan)
                return await run.render(working)
            return await run.render(lane)
        except Exception:
            log.exception("run_failed_unexpectedly", job_id=run.job.job_id, trace_id=run.job.trace_id)
            return UNEXPECTED
        finally:
            del self._running[run]
            side.memory.release(run.reserved_bytes)
            if run.loan:
                run.loan.over.set()
                side.memory.release(run.loan.reserved_bytes)
            self._wake(side)

    def _settlement(self, run: Run) -> Settlement:
        if isinstance(run, FurtherRun):
            return FurtherSettlement(run)
        return Settlement(run, self.wake, partial(self._completions.notify, run.job.job_id))

    async def _finish(self, run: Run, outcome: Outcome | Copies, slots: anyio.Semaphore) -> None:
        settlement = self._settlement(run)
        self._settling.add(settlement)
        try:
            await settlement.settle(outcome if isinstance(outcome, Copies) else await _checked(run, outcome))
        except Exception:
            log.exception("run_not_recorded", job_id=run.job.job_id, trace_id=run.job.trace_id)
        finally:
            slots.release()
            self._settling.discard(settlement)
            self._begun.discard(run)
            run.over.set()
            self._end_run()
            self._completions.notify(run.job.job_id)
            if not settlement.preview_ended:  # else it woke them
                self.wake()
            if settlement.retries:
                self._retries.look_again()


async def _checked(run: Run, outcome: Outcome) -> Outcome:
    """The outcome as it may be believed. It is checked while the run's lane has the next job already."""
    try:
        return await run.check(outcome)
    except Exception:
        log.exception("run_failed_unexpectedly", job_id=run.job.job_id, trace_id=run.job.trace_id)
        return UNEXPECTED


def _members(lane: Lane | SplitLane) -> tuple[Lane, ...]:
    return lane.lanes if isinstance(lane, SplitLane) else (lane,)


def _state(lane: Lane, run: Run | None) -> LaneState:
    job_id = run.job.job_id if run else None
    busy = time.monotonic() - run.began if run else None
    return LaneState(lane.name, lane.pid, lane.alive, job_id, busy, lane.jobs_done, lane.restarts, lane.posture)
