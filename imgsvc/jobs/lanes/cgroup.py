"""Memory and processor limits of this process's control group (a container or unit): cgroups(7), v2 and v1."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

OWN = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def memory_limit(own: Path = OWN, root: Path = ROOT) -> int | None:
    """The lowest limit in bytes of this process's group and its ancestors; None if there is none."""
    files = _files("memory", ("memory.max",), ("memory.limit_in_bytes",), own, root)
    return min((int(text) for (text,) in files if text.isdigit()), default=None)


def processor_limit(own: Path = OWN, root: Path = ROOT) -> float | None:
    """The lowest quota in processors (`docker run --cpus`, CPUQuota=), of the same groups; None if there is none."""
    return min((quota for texts in _quotas(own, root) if (quota := _processors(texts))), default=None)


def _quotas(own: Path, root: Path) -> Iterator[list[str]]:
    """The quota in microseconds, and its period in microseconds."""
    for texts in _files("cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"), own, root):
        yield " ".join(texts).split()


def _processors(texts: list[str]) -> float | None:
    if len(texts) != 2 or not all(text.isdigit() for text in texts):  # "max 100000", "-1 100000", or missing
        return None
    quota, period = (int(text) for text in texts)
    return quota / period if quota and period else None


def _files(
    controller: str, unified: tuple[str, ...], separate: tuple[str, ...], own: Path, root: Path
) -> Iterator[list[str]]:
    """Contents of the files of this process's group and each ancestor: `unified` for v2, `separate` for v1."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folders, names = [root], unified
        elif controller in controllers.split(","):
            folders, names = [root / controller, root / controllers], separate  # cpu may be a link to cpu,cpuacct
        else:
            continue
        # A container without a cgroup namespace sees its own group at the root, and a path that does not exist.
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
