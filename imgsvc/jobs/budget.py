"""How many lanes there are, and how the memory of the worker processes is shared out."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..settings import MEGABYTE, Workers

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
    """As configured, or one for each processor that this process may use."""
    if workers.count:
        return workers.count
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def budget(workers: Workers) -> Budget:
    """Divide `memory_mb` (0: half of what this machine or container has). Raises MemoryTooSmall."""
    total = workers.memory_mb * MEGABYTE or machine_memory() // 2
    idle = (render_lanes(workers) + 1) * IDLE_WORKER_BYTES
    preview = min(PREVIEW_MOST, int((total - idle) * PREVIEW_SHARE))
    if preview < SMALLEST_PREVIEW:
        least = (idle + SMALLEST_PREVIEW / PREVIEW_SHARE) / MEGABYTE
        raise MemoryTooSmall(
            f"[workers] memory_mb (IMGSVC_WORKERS_MEMORY_MB) = {total // MEGABYTE}: "
            f"with {render_lanes(workers)} render workers it must be at least {least:.0f}"
        )
    return Budget(preview, total - idle - preview)


def machine_memory() -> int:
    """Bytes of memory: the container's limit (cgroup v2) where there is one."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total
