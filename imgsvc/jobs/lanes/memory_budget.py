"""The number of lanes, and how the memory for worker processes is divided among them."""

import os
from math import ceil

from ...lazy_dataclass import dataclass
from ...settings.fields import MEGABYTE
from ...settings.workers import Workers
from .cgroup import memory_limit, processor_limit

IDLE_WORKER_BYTES = 40 * MEGABYTE  # measured: 25 to 31 MB
SERVICE_BYTES = 160 * MEGABYTE  # the service's own process during many concurrent uploads
IDLE_SHARE = 3  # with an automatic number of lanes, idle workers use up to a third
PREVIEW_SHARE = 0.25  # of the memory for jobs, up to PREVIEW_MOST
PREVIEW_MOST = 128 * MEGABYTE
SMALLEST_PREVIEW = 20 * MEGABYTE


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory in bytes for the jobs of each queue, beyond the idle workers. Neither can starve the other."""

    preview: int
    render: int


class MemoryTooSmall(Exception):
    """The configured memory is hardly enough for the idle workers."""


def render_lanes(workers: Workers) -> int:
    """The number of render lanes of this machine.

    As configured, else one per usable processor while their idle workers fit.
    """
    if workers.engine == "dask":
        return workers.local_renders
    if workers.count:
        return workers.count
    room = granted(workers) // IDLE_SHARE // IDLE_WORKER_BYTES - 1  # minus the preview lane
    return max(1, min(usable_processors(), room))


def usable_processors() -> int:
    """The number of processors that this process may use: its affinity, or less if a CPU quota is lower."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = processor_limit()
    return min(there, ceil(quota)) if quota else there


def budget(workers: Workers) -> Budget:
    """Divide the granted memory between the queues. Raises MemoryTooSmall."""
    total = granted(workers)
    idle = (render_lanes(workers) + 1) * IDLE_WORKER_BYTES
    preview = min(PREVIEW_MOST, int((total - idle) * PREVIEW_SHARE))
    if preview < SMALLEST_PREVIEW:
        least = (idle + SMALLEST_PREVIEW / PREVIEW_SHARE) / MEGABYTE
        raise MemoryTooSmall(
            f"[workers] memory_mb (IMGSVC_WORKERS_MEMORY_MB) = {total // MEGABYTE}: "
            f"with {render_lanes(workers)} render workers it must be at least {least:.0f}"
        )
    return Budget(preview, total - idle - preview)


def granted(workers: Workers) -> int:
    """Bytes for all worker processes together: `memory_mb`, or an automatic amount.

    A container's or unit's limit is for this service alone, so all of it is used. A machine is shared, so half is used.
    """
    if workers.memory_mb:
        return workers.memory_mb * MEGABYTE
    there = machine_memory()
    return there // 2 if there == _physical() else max(there // 2, there - SERVICE_BYTES)


def machine_memory() -> int:
    """Bytes of memory: the limit of the container or unit if there is one, else the physical memory."""
    return min(_physical(), memory_limit() or _physical())


def _physical() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
