"""The memory that the system grants this process: a container's limit, or a systemd unit's (cgroups(7), v2 and v1)."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

OWN = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")


def memory_limit(own: Path = OWN, root: Path = ROOT) -> int | None:
    """Bytes: the lowest limit of this process's group and of those around it; None where there is none."""
    limits = [int(text) for file in _limit_files(own, root) if (text := _read(file).strip()).isdigit()]
    return min(limits, default=None)


def _limit_files(own: Path, root: Path) -> Iterator[Path]:
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        # A container without a namespace for them sees its own group at the root, and a path that is not there.
        group = PurePosixPath(path.lstrip("/"))
        yield from (folder / part / name for part in (group, *group.parents) if ".." not in part.parts)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
