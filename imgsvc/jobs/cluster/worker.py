"""`imgsvc worker`: a machine's side of the cluster. Dask's worker, whose tickets caged children render.

It joins the cluster again whenever its scheduler was away. SIGTERM drains it: it takes no further ticket, finishes
those that it works on, and leaves; what waits at it goes to others. A second signal ends it at once.
"""

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import distributed
import structlog
import uvloop
from distributed.core import Status
from distributed.diagnostics.plugin import WorkerPlugin

from ... import __version__
from ...lazy_dataclass import dataclass
from ...settings.fields import MEGABYTE
from ...settings.workers import Workers
from ..lanes.cage import in_words
from ..lanes.caged_types import CAGED, accepted_types
from ..lanes.libc import return_large_blocks
from ..lanes.memory_budget import IDLE_WORKER_BYTES, granted, render_lanes
from ..lanes.pool import Launcher
from ..lanes.process import ProcessLane
from . import connections, dask_setup, performer
from .performer import Performer

log = structlog.get_logger()

OWN_BYTES = 120 * MEGABYTE  # of Dask's worker itself, measured: 70 MB
NICENESS = 10
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
LOOK_SECONDS = 0.1


class TooLittleMemory(Exception):
    """The memory is not enough for the idle processes. The message names the setting."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Tickets at a time, and memory for them together in MB."""

    count: int
    megabytes: int

    @classmethod
    def of(cls, workers: Workers) -> "Capacity":
        """By `count` and `memory_mb`, else by what this machine has. Raises TooLittleMemory."""
        alone = workers.model_copy(update={"engine": "local"})
        count, total = render_lanes(alone), granted(alone)
        left = (total - OWN_BYTES - count * IDLE_WORKER_BYTES) // MEGABYTE
        if left < 32 * count:
            least = (OWN_BYTES + count * IDLE_WORKER_BYTES) // MEGABYTE + 32 * count
            raise TooLittleMemory(
                f"--memory-mb ([workers] memory_mb) = {total // MEGABYTE}: with {count} processes it must be at least "
                f"{least}"
            )
        return cls(count, left)


class Revoker(WorkerPlugin):  # type: ignore[misc]  # distributed has no types
    """Ends the ticket of a task that Dask releases: Dask alone would let the task run on."""

    name = "imgsvc-revoker"

    def __init__(self, performing: Performer) -> None:
        self._performing = performing

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        if start == "executing" and finish in ("cancelled", "released", "forgotten"):
            self._performing.revoke(str(key).removeprefix("imgsvc-"))


def run(workers: Workers) -> int:
    """Work until SIGTERM or SIGINT. Returns the exit status. Raises TooLittleMemory, OSError or ssl.SSLError."""
    capacity = Capacity.of(workers)
    return_large_blocks()
    dask_setup.configure()
    security = dask_setup.security(workers.ca_file, workers.certfile, workers.keyfile)
    security.get_connection_args("worker")  # raises OSError or ssl.SSLError for what can't be used
    # httpx looks for it several times at each request: through all of sys.path, and it is not installed.
    sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(workers, capacity, security))


async def _serve(workers: Workers, capacity: Capacity, security: distributed.Security) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stopping)
    async with _performing(workers, capacity) as (performing, lanes):
        about = {"version": __version__, "fingerprint": dask_setup.fingerprint(), **lanes}
        pause = FIRST_PAUSE_SECONDS
        while not stopping.is_set():
            member = _Member(workers, capacity, security, performing, about)
            if await member.work(stopping):
                pause = FIRST_PAUSE_SECONDS
            if stopping.is_set():
                break
            log.warning("scheduler_lost", scheduler=workers.scheduler, again_in_seconds=pause)
            await _first(stopping.wait(), asyncio.sleep(pause))
            pause = min(LONGEST_PAUSE_SECONDS, 2 * pause)
    log.info("worker_stopped")
    return 0


def _on_signal(stopping: asyncio.Event) -> None:
    if stopping.is_set():
        os._exit(1)
    log.info("worker_drains")
    stopping.set()


class _Member:
    """One membership in the cluster, from joining until the scheduler or this worker has left."""

    def __init__(
        self,
        workers: Workers,
        capacity: Capacity,
        security: distributed.Security,
        performing: Performer,
        about: dict[str, Any],
    ) -> None:
        self._workers = workers
        self._performing = performing
        self._options = {
            "nthreads": capacity.count,
            "resources": {
                dask_setup.MEGABYTES: capacity.megabytes,
                dask_setup.places_of(about["fingerprint"]): capacity.count,
            },
            "name": dask_setup.machine_name(),
            "security": security,
            "memory_limit": 0,
            "dashboard": False,
            "plugins": (Revoker(performing),),
            "startup_information": {"imgsvc": lambda _worker: about},
            "local_directory": str(performing.folder),
            "death_timeout": 10,
        }

    async def work(self, stopping: asyncio.Event) -> bool:
        """Work until one of both ends; returns whether it had joined."""
        try:
            worker = await distributed.Worker(self._workers.scheduler, **self._options)
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            log.warning("scheduler_unreachable", scheduler=self._workers.scheduler, reason=str(error)[:300])
            return False
        log.info("worker_joined", scheduler=self._workers.scheduler, address=worker.address)
        await _first(stopping.wait(), worker.finished())
        if worker.status not in (Status.closed, Status.closing, Status.failed):
            worker.status = Status.paused
            while self._performing.running and worker.status == Status.paused:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
            await worker.close()
        return True


@asynccontextmanager
async def _performing(workers: Workers, capacity: Capacity) -> AsyncIterator[tuple[Performer, dict[str, Any]]]:
    """The performer, its lanes started, and what they say of their cage and its decoders. Raises OSError."""
    launcher = Launcher()
    lanes = [
        ProcessLane(
            f"render-{number}",
            nice=NICENESS,
            jobs_per_process=workers.jobs_per_process,
            cage=workers.cage,
            launcher=launcher,
        )
        for number in range(capacity.count)
    ]
    folder = performer.make_folder()
    try:
        async with connections.client(_trust(workers)) as http:
            await asyncio.gather(*(lane.start() for lane in lanes))
            performing = Performer(lanes, http, folder)
            performer.use(performing)
            posture = lanes[0].posture
            yield (
                performing,
                {"cage": in_words(posture) if posture else "nothing", "decoders": _caged_decoders(lanes[0])},
            )
    finally:
        performer.use(None)
        for lane in lanes:
            await lane.close()
        launcher.close()
        performer.remove_folder(folder)


def _caged_decoders(lane: ProcessLane) -> dict[str, str]:
    """The types that are decoded in the cage only, with their decoders; none unless the whole of it is in force."""
    return {mime: lane.decoders[mime] for mime in accepted_types(CAGED, (lane,))}


def _trust(workers: Workers) -> ssl.SSLContext:
    """The system's authorities, and the cluster's own, for the service's HTTPS."""
    context = ssl.create_default_context()
    if workers.ca_file:
        context.load_verify_locations(workers.ca_file)
    return context


async def _first(*waiting: Any) -> None:
    tasks = [asyncio.ensure_future(one) for one in waiting]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
