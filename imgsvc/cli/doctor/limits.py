"""Checks the limits of the system: open files, processors and memory."""

import resource
from collections.abc import Iterator

from ...imaging.header import Header
from ...imaging.limits import left_out, render_bytes
from ...jobs.lanes.cgroup import processor_limit
from ...jobs.lanes.memory_budget import (
    SERVICE_BYTES,
    MemoryTooSmall,
    budget,
    granted,
    machine_memory,
    render_lanes,
    usable_processors,
)
from ...settings import Settings
from ...settings.fields import MEGABYTE
from .finding import Finding, warning, well, wrong

FEW_FILES = 1024


def open_files(_settings: Settings) -> Iterator[Finding]:
    """The service raises its limit to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{'any number of' if hard == resource.RLIM_INFINITY else f'{hard:,}'} open files are allowed"
    if hard != resource.RLIM_INFINITY and hard < FEW_FILES:
        yield warning(text, f"each connection uses one: allow {FEW_FILES:,} or more (ulimit -n, LimitNOFILE=)")
    else:
        yield well(text)


def processors(settings: Settings) -> Iterator[Finding]:
    """With more render workers than the quota allows, they take turns and each picture takes longer."""
    quota, lanes = processor_limit(), render_lanes(settings.workers)
    text = f"{usable_processors()} usable processors" + (f" (a quota of {quota:g})" if quota else "")
    if lanes > usable_processors():
        yield warning(f"{text} for {lanes} render workers", "lower [workers] count: more workers only wait")
    else:
        yield well(f"{text}; {lanes} render workers")


def memory(settings: Settings) -> Iterator[Finding]:
    workers, there = settings.workers, machine_memory()
    try:
        share = budget(workers)
    except MemoryTooSmall as error:
        yield wrong(str(error), "allow more memory or use fewer workers: the service does not start like this")
        return
    taken = granted(workers)
    text = f"{there // MEGABYTE:,} MB here, of which {render_lanes(workers) + 1} workers may take {taken // MEGABYTE:,}"
    if taken + SERVICE_BYTES > there:
        advice = (
            f"lower [workers] memory_mb to {max(0, (there - SERVICE_BYTES) // MEGABYTE)} or less, or the system kills"
        )
        yield wrong(text, advice)
        return
    most = _largest_photo(settings, share.render)
    if most < settings.images.max_pixels:
        advice = "allow more memory (workers.memory_mb), or lower images.max_pixels, so that this refuses uploads"
        yield warning(f"{text}: enough for a plain JPEG of up to {most / 1e6:.0f} megapixels", advice)
    else:
        yield well(text)
    if names := left_out(settings.images.recipe, share.render):
        advice = "allow more memory (workers.memory_mb): photos that fill these get no AVIF"
        yield warning(f"not enough memory for {', '.join(names)}", advice)


def _largest_photo(settings: Settings, grant: int) -> int:
    """Pixels of the largest baseline JPEG (4:3) whose render fits into `grant` bytes, up to `max_pixels`."""
    low, high = 0, settings.images.max_pixels
    while low < high:
        middle = (low + high + 1) // 2
        side = int((middle / 12) ** 0.5) or 1
        header = Header("JPEG", 4 * side, 3 * side, channels=3, coefficients=1.5)
        low, high = (middle, high) if render_bytes(header, settings.images.recipe) <= grant else (low, middle - 1)
    return low
