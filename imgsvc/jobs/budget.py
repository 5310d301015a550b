"""How many lanes there are, and how the memory of the worker processes is shared out."""

import os
from dataclasses import dataclass

from ..settings import MEGABYTE, Workers
from .cgroup import memory_limit

IDLE_WORKER_BYTES = 40 * MEGABYTE  # measured: 25 to 31 MB
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
    """As configured, or one for each processor that this process may use, as long as memory is left for their jobs."""
    if workers.count:
        return workers.count
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    room = _total(workers) // 2 // IDLE_WORKER_BYTES - 1  # the preview lane is one more
    return max(1, min(processors, room))


def budget(workers: Workers) -> Budget:
    """Divide `memory_mb` (0: half of what this machine or container has). Raises MemoryTooSmall."""
    total = _total(workers)
    idle = (render_lanes(workers) + 1) * IDLE_WORKER_BYTES
    preview = min(PREVIEW_MOST, int((total - idle) * PREVIEW_SHARE))
    if preview < SMALLEST_PREVIEW:
        least = (idle + SMALLEST_PREVIEW / PREVIEW_SHARE) / MEGABYTE
        raise MemoryTooSmall(
            f"[workers] memory_mb (IMGSVC_WORKERS_MEMORY_MB) = {total // MEGABYTE}: "
            f"with {render_lanes(workers)} render workers it must be at least {least:.0f}"
        )
    return Budget(preview, total - idle - preview)


def _total(workers: Workers) -> int:
    return workers.memory_mb * MEGABYTE or machine_memory() // 2


def machine_memory() -> int:
    """Bytes of memory: the limit of the container or unit where there is one."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(total, memory_limit() or total)
