"""Resource usage of the machine and this process, sampled in a thread: a dead mount makes psutil hang."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from .host_models import Cpu, Disk, HostSample, Memory, ProcessUse, Resources

if TYPE_CHECKING:
    from .host_sample import Sampler

LOOK_SECONDS = 2.0
# Until there is a first one, where that hangs.
NO_SAMPLE = HostSample(
    Resources(
        cpu=Cpu(percent=0, count=1),
        memory=Memory(total_gb=0, available_gb=0, used_gb=0, percent=0),
        disk_root=Disk(total_gb=0, used_gb=0, free_gb=0, percent=0),
        process=ProcessUse(memory_rss_mb=0, memory_vms_mb=0, threads=1),
    ),
    storage=None,
    database_mb=0,
    rss={},
)


class Host:
    """Samples on request, one at a time. While a thread hangs, the last sample is returned."""

    def __init__(self, database: Path, storage: Path) -> None:
        self.started = time.monotonic()
        self._database, self._storage = database, storage
        self._looking = False
        self._sampler: Sampler | None = None
        self._last = NO_SAMPLE

    @property
    def uptime_seconds(self) -> float:
        return time.monotonic() - self.started

    async def look(self, pids: Sequence[int]) -> HostSample:
        """Take a sample, including the memory of these processes; returns the last sample if this takes too long."""
        if not self._looking:
            self._looking = True
            with anyio.move_on_after(LOOK_SECONDS):
                await anyio.to_thread.run_sync(self._look, pids, abandon_on_cancel=True)
        return self._last

    def _look(self, pids: Sequence[int]) -> None:
        try:
            if self._sampler is None:
                from .host_sample import Sampler  # here: a start does not wait for psutil

                self._sampler = Sampler(self._database, self._storage)
            self._last = self._sampler.sample(pids)
        finally:
            self._looking = False


def uptime_words(seconds: float) -> str:
    """'3 d 4 h', '4 h 5 min', '5 min', '6 s': the two largest units."""
    whole = int(seconds)
    units = ((whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"))
    named = [f"{count} {unit}" for count, unit in units]
    first = next((place for place, (count, _) in enumerate(units) if count), None)
    return " ".join(named[first : first + 2]) if first is not None else f"{whole} s"
