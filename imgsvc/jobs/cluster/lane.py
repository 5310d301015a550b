"""Lanes whose tasks are done on other machines, and the memory that these have.

A lane holds one ticket at a time. Of the lanes that there are, as many take jobs as the machines have places.
"""

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import structlog

from ...access.render_tokens import RenderTokens
from ...imaging.recipe import SOURCE
from ...settings.fields import MEGABYTE
from ...storage.base import Differs, NotStored, StorageError
from ...storage.thread_visit import in_thread
from ..failures import CRASHED, IO_ERROR, NOT_STORED, SOURCE_MISSING
from ..incoming import Incoming
from ..lane_memory import largest_in, reserve_of
from ..lanes.cage import Posture
from ..lanes.files import SOURCE_FLAGS, output_names
from ..lanes.messages import Lost, Outcome, Rendered, Task
from ..lanes.process import NOT_BEGUN
from ..rendered_files import received_at
from ..retry import exclusive
from ..table.model import Job, QueueName
from .link import OUT_FACTOR, GatewayLink
from .messages import Submit
from .open_tickets import NotPut, OpenTicket, OpenTickets
from .ticket import RenderTicket, answer_to

log = structlog.get_logger()

# A ticket waits behind as many others as are out beyond what the machines can do at once, and travels.
DEADLINE_FACTOR, DEADLINE_SECONDS = 3, 60
PRIORITY = {"preview": 10, "render": 0}
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 30.0  # after a ticket was lost, so that no lane runs in circles


class TicketOffice:
    """What the lanes of a cluster share. `address` is where machines reach this service; empty until it listens."""

    def __init__(self, link: GatewayLink, address: str = "", incoming: Incoming | None = None) -> None:
        self.link = link
        self.incoming = incoming or Incoming()
        self.tokens = RenderTokens()
        self.tickets = OpenTickets()
        self._configured = address
        self.address = address

    def serve_at(self, address: str) -> None:
        """The service listens at this URL, which is used where none is configured."""
        self.address = self._configured or address
        self.link.tell_changed()


class ClusterLane:
    """One of a cluster's lanes: `number` is its place among them."""

    local = False
    restarts = 0  # of processes of this machine, of which there is none
    pid: int | None = None
    posture: Posture | None = None

    def __init__(self, name: str, number: int, office: TicketOffice) -> None:
        self.name = name
        self.jobs_done = 0
        self._number = number
        self._office = office
        self._link = office.link
        self._shut = False
        self._shutting = anyio.Event()
        self._scope: anyio.CancelScope | None = None  # of the task
        self._losses = 0  # in a row
        self._started = self._pausing = False

    @property
    def alive(self) -> bool:
        ready = not self._shut and not self._pausing and bool(self._office.address)
        return ready and self._link.places > self._number

    @property
    def decoders(self) -> Mapping[str, str]:
        return self._link.decoders

    async def start(self) -> None:
        """Wait until this lane has a place. Raises OSError once it was shut."""
        if self._losses:
            pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**self._losses)
            self._pausing = True
            try:
                with anyio.move_on_after(pause):
                    await self._shutting.wait()
            finally:
                self._pausing = False
        while not self.alive:
            if self._shut:
                raise ChildProcessError("the lane was shut")
            await self._link.wait_for_change()
        self._started = True

    async def run(self, task: Task) -> Outcome:
        """Do one task on another machine. What a machine, the scheduler or the network has lost is a Lost."""
        if self._shut:
            return NOT_BEGUN
        with anyio.CancelScope() as self._scope:
            try:
                if not self._started:  # later, a job is not kept waiting for a cluster that has left
                    await self.start()
                outcome = await self._attempt(task)
            except ChildProcessError:
                return NOT_BEGUN
            except FileNotFoundError:
                return SOURCE_MISSING
            except OSError as error:
                log.error("io_error", lane=self.name, trace_id=task.trace_id, reason=error.strerror)
                return IO_ERROR
            finally:
                self._scope = None
            if isinstance(outcome, Lost):
                self._losses += 1
                words = {"lane": self.name, "job_id": task.job_id, "trace_id": task.trace_id}
                log.warning("ticket_lost", **words, reason=outcome.reason)
            else:
                self._losses = 0
                self.jobs_done += 1
            return outcome
        return NOT_BEGUN

    async def _attempt(self, task: Task) -> Outcome:
        if not task.memory_ceiling:
            return Lost("the machines left while the job was claimed")
        office, names = self._office, output_names(task)
        size = await in_thread(_prepared, task)
        largest = dict.fromkeys(names, task.file_ceiling)
        seconds = DEADLINE_FACTOR * task.time_limit + DEADLINE_SECONDS
        token = office.tokens.issue(task.job_id, task.run, seconds, largest)
        incoming = office.incoming.of(Path(task.folder).name)
        ticket = RenderTicket.of(
            task, size, f"{office.address}/api/v1/render/{token}", into_storage=incoming is not None
        )
        on_answer = partial(self._link.answered, task.id)
        opened = OpenTicket(Path(task.source), size, received_at(task), largest, incoming, on_answer)
        began = time.monotonic()
        with office.tickets.opened(token, opened):
            megabytes = -(-task.memory_ceiling // MEGABYTE)
            submit = Submit(
                id=task.id, ticket=ticket.model_dump_json(), megabytes=megabytes, priority=PRIORITY[task.kind]
            )
            found: str | Lost = Lost(f"not answered within {seconds:.0f} seconds")
            with anyio.move_on_after(seconds):
                found = await self._link.perform(submit)
        log.debug("ticket_ended", lane=self.name, trace_id=task.trace_id, seconds=time.monotonic() - began)
        if isinstance(found, Lost):  # what only waited at the machine has nothing to do with its end
            return replace(found, begun=found.begun and opened.is_begun)
        return await self._outcome(task, found, opened)

    async def _outcome(self, task: Task, text: str, opened: OpenTicket) -> Outcome:
        try:
            answer = answer_to(task, text)
        except ValueError as error:
            reason = type(error).__name__  # never text from a worker
            log.warning("worker_answer_invalid", lane=self.name, reason=reason, trace_id=task.trace_id)
            return CRASHED
        if answer.reason is not None:
            return Lost(f"the machine says: {answer.reason}")
        outcome = answer.result(task)
        if isinstance(outcome, Rendered):
            return await self._taken(task, outcome, opened)
        return outcome

    async def _taken(self, task: Task, rendered: Rendered, opened: OpenTicket) -> Outcome:
        """The rendering, once all of its files are in the scratch folder. Raises OSError."""
        try:
            if rendered.source is not None and SOURCE not in opened.received:
                raise NotPut
            for made in rendered.variants:
                if made.name not in opened.received:
                    await opened.take(made)
                    self._office.tickets.received_bytes += made.size_bytes
        except (NotPut, NotStored, Differs):
            log.warning("worker_answer_invalid", lane=self.name, reason="not all was put", trace_id=task.trace_id)
            return CRASHED
        except StorageError as error:
            log.warning("incoming_not_read", lane=self.name, reason=str(error), trace_id=task.trace_id)
            return NOT_STORED
        return rendered

    def kill(self) -> None:
        """Take the ticket back: nothing more is accepted for it, and its machine ends it."""
        if self._scope is not None:
            self._scope.cancel()

    def shut(self) -> None:
        self._shut = True
        self._shutting.set()
        self.kill()

    async def close(self) -> None:
        self.shut()


class ClusterMemory:
    """The memory of a cluster's machines, for the jobs of one queue: in the place of a LaneMemory.

    A job that must run alone gets the whole memory of its machine, and so is alone there.
    """

    def __init__(self, link: GatewayLink, share: Callable[[], int] = lambda: 0) -> None:
        self.used = self.running = 0
        self._link = link
        self._others = share  # bytes that the other queue uses

    @property
    def total(self) -> int:
        return OUT_FACTOR * MEGABYTE * sum(one.megabytes for one in self._link.usable)

    @property
    def biggest(self) -> int:
        """Bytes of the machine that has most."""
        return MEGABYTE * max((one.megabytes for one in self._link.usable), default=0)

    @property
    def free(self) -> int:
        return self.total - self.used - self._others()

    @property
    def takes_any(self) -> bool:
        """Whether a job may be claimed that needs a machine for itself, or more than there is."""
        return 0 < self.biggest <= self.free

    @property
    def largest(self) -> int:
        """The largest estimate whose reserve is free, in bytes; negative while there is no machine."""
        return largest_in(min(self.free, self.biggest)) if self.biggest else -1

    def reserve(self, job: Job, queue: QueueName) -> int:
        """Reserve the most that the job may use; returns the bytes."""
        estimate = (job.preview_bytes or 0) if queue == "previews" else job.render_bytes
        needs = min(self.biggest, reserve_of(estimate))
        if queue == "renders" and exclusive(deaths=job.deaths, starts=job.starts - 1):
            needs = self.biggest
        self.used += needs
        self.running += 1
        return needs

    def release(self, reserved: int) -> None:
        self.used -= reserved
        self.running -= 1


def _prepared(task: Task) -> int:
    """The source's bytes. Raises OSError if it is gone, or no regular file. Makes the scratch folder, if that is gone.

    A task has no folder of its own: what its machine puts are files beside the folders of tasks that are done here.
    """
    if not (scratch := Path(task.folder).parent).is_dir():
        scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(task.source, SOURCE_FLAGS)
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "the staged source is not a regular file")
    return found.st_size
