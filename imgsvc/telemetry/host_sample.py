"""One sample of the machine and this process, by psutil."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from ..settings.fields import MEGABYTE
from .host_models import Cpu, Disk, HostSample, Memory, ProcessUse, Resources

GIGABYTE = 1 << 30


class Sampler:
    """Remembers the processors' times, for their usage since the last sample: at the first one since the boot."""

    def __init__(self, database: Path, storage: Path) -> None:
        self._database, self._storage = database, storage
        self._process = psutil.Process()
        self._times = dict.fromkeys(psutil.cpu_times()._asdict(), 0.0)

    def sample(self, pids: Sequence[int]) -> HostSample:
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


def _gigabytes(size: int) -> float:
    return round(size / GIGABYTE, 2)


def _megabytes(size: int) -> float:
    return round(size / MEGABYTE, 1)
