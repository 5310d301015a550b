"""Resource usage of the machine and this process, read by psutil in a thread: a dead mount makes psutil hang."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import psutil
from pydantic import BaseModel

from ..settings.fields import MEGABYTE

GIGABYTE = 1 << 30
LOOK_SECONDS = 2.0


class Cpu(BaseModel):
    """`percent` of all processors since the last sample."""

    percent: float
    count: int


class Memory(BaseModel):
    total_gb: float
    available_gb: float
    used_gb: float
    percent: float


class Disk(BaseModel):
    total_gb: float
    used_gb: float
    free_gb: float
    percent: float


class ProcessUse(BaseModel):
    memory_rss_mb: float
    memory_vms_mb: float
    threads: int


class Resources(BaseModel):
    cpu: Cpu
    memory: Memory
    disk_root: Disk
    process: ProcessUse


@dataclass(frozen=True, slots=True)
class HostSample:
    """One sample. Sizes in MB; `storage` is None if its folder can't be read; `rss` is by process ID."""

    resources: Resources
    storage: Disk | None
    database_mb: float
    rss: Mapping[int, float]


class Host:
    """Samples on request, one at a time. While a thread hangs, the last sample is returned."""

    def __init__(self, database: Path, storage: Path) -> None:
        self.started = time.monotonic()
        self._database, self._storage = database, storage
        self._process = psutil.Process()
        self._looking = False
        self._times = psutil.cpu_times()._asdict()
        self._last = self._measured(())

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
            self._last = self._measured(pids)
        finally:
            self._looking = False

    def _measured(self, pids: Sequence[int]) -> HostSample:
        found = {pid: _resident_mb(pid) for pid in pids}
        return HostSample(
            self._resources(),
            _disk_or_none(self._storage),
            _file_mb(self._database),
            {pid: size for pid, size in found.items() if size is not None},
        )

    def _resources(self) -> Resources:
        memory = psutil.virtual_memory()
        with self._process.oneshot():
            use = self._process.memory_info()
            threads = self._process.num_threads()
        return Resources(
            cpu=Cpu(percent=self._cpu_percent(), count=psutil.cpu_count() or 1),
            memory=Memory(
                total_gb=_gigabytes(memory.total),
                available_gb=_gigabytes(memory.available),
                used_gb=_gigabytes(memory.total - memory.available),
                percent=memory.percent,
            ),
            disk_root=_disk(Path("/")),
            process=ProcessUse(memory_rss_mb=_megabytes(use.rss), memory_vms_mb=_megabytes(use.vms), threads=threads),
        )

    def _cpu_percent(self) -> float:
        """Processor usage since the last sample. psutil's own function remembers its last call per thread."""
        before, self._times = self._times, psutil.cpu_times()._asdict()
        return busy_percent(before, self._times)


def busy_percent(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """The share of time between two readings of all processors that was spent on work, 0 to 100."""
    spent = {name: max(0.0, seconds - before[name]) for name, seconds in after.items()}
    # Linux includes the time of guests in `user` and `nice`.
    total = sum(spent.values()) - spent.get("guest", 0.0) - spent.get("guest_nice", 0.0)
    idle = spent["idle"] + spent.get("iowait", 0.0)
    return round(100 * (total - idle) / total, 1) if total > 0 else 0.0


def _disk_or_none(folder: Path) -> Disk | None:
    try:
        return _disk(folder)
    except OSError:
        return None


def _disk(folder: Path) -> Disk:
    """The file system that holds `folder`. Raises OSError."""
    use = psutil.disk_usage(str(folder))
    return Disk(
        total_gb=_gigabytes(use.total), used_gb=_gigabytes(use.used), free_gb=_gigabytes(use.free), percent=use.percent
    )


def _resident_mb(pid: int) -> float | None:
    """Memory of a worker in MB, or of its picture's process, which shares it and has more; None if it has ended."""
    sizes = []
    for one in (pid, *_children(pid)):
        with suppress(psutil.Error):
            sizes.append(_megabytes(psutil.Process(one).memory_info().rss))
    return max(sizes, default=None)


def _children(pid: int) -> list[int]:
    """The children of a process with one thread (proc(5)); none where the kernel does not list them."""
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def _file_mb(path: Path) -> float:
    """Size of a database with its write-ahead log."""
    return _megabytes(sum(part.stat().st_size for part in (path, path.with_name(f"{path.name}-wal")) if part.exists()))


def uptime_words(seconds: float) -> str:
    """'3 d 4 h', '4 h 5 min', '5 min', '6 s': the two largest units."""
    whole = int(seconds)
    units = ((whole // 86_400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"))
    named = [f"{count} {unit}" for count, unit in units]
    first = next((place for place, (count, _) in enumerate(units) if count), None)
    return " ".join(named[first : first + 2]) if first is not None else f"{whole} s"


def _gigabytes(size: int) -> float:
    return round(size / GIGABYTE, 2)


def _megabytes(size: int) -> float:
    return round(size / MEGABYTE, 1)
