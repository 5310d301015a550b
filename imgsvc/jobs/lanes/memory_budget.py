"""How many lanes there are, and how the memory of the worker processes is shared out."""

import os
from dataclasses import dataclass
from math import ceil

from ...settings.fields import MEGABYTE
from ...settings.jobs import Workers
from .cgroup import memory_limit, processor_limit

IDLE_WORKER_BYTES = 40 * MEGABYTE  # measured: 25 to 31 MB
SERVICE_BYTES = 160 * MEGABYTE  # the service's own process, while many upload at once
IDLE_SHARE = 3  # where lanes are counted automatically, idle workers take up to a third
PREVIEW_SHARE = 0.25  # of the memory for jobs, up to PREVIEW_MOST
PREVIEW_MOST = 128 * MEGABYTE
SMALLEST_PREVIEW = 20 * MEGABYTE


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes for the jobs of each side, beyond what idle workers take. Separate, so that neither starves the other."""

    preview: int
    render: int


class MemoryTooSmall(Exception):
    """The configured memory hardly holds the idle workers."""


def render_lanes(workers: Workers) -> int:
    """As configured, or one for each processor that may be kept busy, as long as memory is left for their jobs."""
    if workers.count:
        return workers.count
    room = granted(workers) // IDLE_SHARE // IDLE_WORKER_BYTES - 1  # the preview lane is one more
    return max(1, min(usable_processors(), room))


def usable_processors() -> int:
    """How many this process may keep busy: those it may run on, or fewer where a quota grants less time than theirs."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = processor_limit()
    return min(there, ceil(quota)) if quota else there


def budget(workers: Workers) -> Budget:
    """Divide what is granted. Raises MemoryTooSmall."""
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
    """Bytes for all worker processes together: `memory_mb`, or by itself.

    A limit is there for us alone, so that all of it is used; a machine is shared, so that half of it is.
    """
    if workers.memory_mb:
        return workers.memory_mb * MEGABYTE
    there = machine_memory()
    return there // 2 if there == _physical() else max(there // 2, there - SERVICE_BYTES)


def machine_memory() -> int:
    """Bytes of memory: the limit of the container or unit where there is one."""
    return min(_physical(), memory_limit() or _physical())


def _physical() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
