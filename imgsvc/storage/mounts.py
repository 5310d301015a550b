"""The file system that a folder is on, by Linux' mountinfo (proc(5)). Elsewhere nothing is known of it."""

import re
from contextlib import suppress
from pathlib import Path

from ..lazy_dataclass import dataclass

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|virtiofs|vboxsf|prl_fs|afs|ceph|glusterfs|ncpfs|davfs"
    r"|fuse\.(sshfs|s3fs|rclone|glusterfs|davfs2?|grpcfuse)"
)


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a file system is mounted, and its type."""

    point: Path
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether another machine holds the files: a server, or the host of this virtual machine."""
        return bool(NETWORK.fullmatch(self.kind))


def mount_of(folder: Path) -> Mount:
    """The mount that holds `folder`, which need not exist; of the type "unknown" where that can't be read."""
    mounts = ""
    with suppress(OSError):
        mounts = MOUNTS.read_text(encoding="utf-8", errors="replace")
    return mount_in(folder.resolve(), mounts)


def mount_in(folder: Path, mounts: str) -> Mount:
    """The same by the text of mountinfo; `folder` is absolute and holds no link."""
    best = Mount(Path("/"), "unknown")
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4]))
        if folder.is_relative_to(point) and len(point.parts) >= len(best.point.parts):
            best = Mount(point, after.split()[0])
    return best
