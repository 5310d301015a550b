"""Memory and processors that the system grants this process: limits of a container or unit (cgroups(7), v2 and v1)."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

OWN = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def memory_limit(own: Path = OWN, root: Path = ROOT) -> int | None:
    """Bytes: the lowest limit of this process's group and of those around it; None where there is none."""
    files = _files("memory", ("memory.max",), ("memory.limit_in_bytes",), own, root)
    return min((int(text) for (text,) in files if text.isdigit()), default=None)


def processor_limit(own: Path = OWN, root: Path = ROOT) -> float | None:
    """Processors' worth of time (`docker run --cpus`, CPUQuota=): the lowest quota likewise; None: no quota."""
    return min((quota for texts in _quotas(own, root) if (quota := _processors(texts))), default=None)


def _quotas(own: Path, root: Path) -> Iterator[list[str]]:
    """Microseconds of time, and the microseconds within which they may be used."""
    for texts in _files("cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"), own, root):
        yield " ".join(texts).split()


def _processors(texts: list[str]) -> float | None:
    if len(texts) != 2 or not all(text.isdigit() for text in texts):  # "max 100000", "-1 100000", or not there
        return None
    quota, period = (int(text) for text in texts)
    return quota / period if quota and period else None


def _files(
    controller: str, unified: tuple[str, ...], separate: tuple[str, ...], own: Path, root: Path
) -> Iterator[list[str]]:
    """What the files of this process's group say, and of each around it: `unified` of v2, `separate` of v1."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folders, names = [root], unified
        elif controller in controllers.split(","):
            folders, names = [root / controller, root / controllers], separate  # cpu is a link to cpu,cpuacct, or not
        else:
            continue
        # A container without a namespace for them sees its own group at the root, and a path that is not there.
        group = PurePosixPath(path.lstrip("/"))
        for folder in folders:
            for part in (group, *group.parents):
                if ".." not in part.parts:
                    yield [_read(folder / part / name).strip() for name in names]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
