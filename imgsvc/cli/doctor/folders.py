"""Where the data goes: writable, on a disk of its own kind, with room."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ...settings import Settings
from ...settings.fields import MEGABYTE
from .finding import Finding, warning, well, wrong

MOUNTS = Path("/proc/self/mountinfo")
NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|glusterfs|ncpfs|fuse\.(sshfs|s3fs|rclone|glusterfs|davfs2?)|davfs"
)
TEMPORARY = ("tmpfs", "ramfs")
FEW_INODES = 10_000  # an image takes about five files


def folders(settings: Settings) -> Iterator[Finding]:
    for name, folder in used(settings):
        if not folder.is_dir():
            yield _to_be_made(name, folder)
            continue
        try:
            _probe(folder)
        except OSError as error:
            ours, owner = os.geteuid(), folder.stat().st_uid
            yield wrong(
                f"{name} {folder} can't be written: {error.strerror} (it belongs to user {owner}, this is {ours})",
                f"chown -R {ours} {folder}, or run as the user it belongs to",
            )
            continue
        yield from _kind(name, folder)
        yield from _strangers(name, folder)


def space(settings: Settings) -> Iterator[Finding]:
    reserve = settings.storage.reserve_mb * MEGABYTE
    for name, folder in used(settings):
        there = _nearest(folder)
        disk = os.statvfs(there)
        free = disk.f_bavail * disk.f_frsize
        said = f"{name}: {free / MEGABYTE:,.0f} MB free"
        if free < reserve:
            advice = "make room, or lower [storage] reserve_mb: uploads are refused with 507"
            yield wrong(f"{said}, which is under the reserve of {settings.storage.reserve_mb} MB", advice)
        elif free < 2 * reserve:
            yield warning(f"{said}, and {settings.storage.reserve_mb} MB are kept in reserve", "make room soon")
        elif disk.f_files and disk.f_favail < FEW_INODES:  # some file systems count none
            yield warning(f"{said}, but only {disk.f_favail:,} inodes", "remove files, or use a file system with more")
        else:
            yield well(said)


def used(settings: Settings) -> list[tuple[str, Path]]:
    """The folders that the service writes to."""
    found = [("data folder", settings.data)]
    if settings.storage.backend == "local":
        found.append(("storage folder", settings.storage.path))
    return [(name, path.absolute()) for name, path in found]


def mount_of(folder: Path, mounts: str) -> tuple[Path, str]:
    """(mount point, file system type) that holds `folder`, by the text of proc(5)'s mountinfo."""
    best = (Path("/"), "unknown")
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split()[4]))
        if folder.is_relative_to(point) and len(point.parts) >= len(best[0].parts):
            best = (point, after.split()[0])
    return best


def _kind(name: str, folder: Path) -> Iterator[Finding]:
    mounts = ""
    with suppress(OSError):
        mounts = MOUNTS.read_text(encoding="utf-8", errors="replace")
    point, kind = mount_of(folder.resolve(), mounts)
    said = f"{name} {folder} is writable, on {kind} mounted at {point}"
    if NETWORK.fullmatch(kind):
        if name == "data folder":
            advice = "move the database to a local disk (DATABASE_PATH): on a share its locks and syncs promise nothing"
            yield wrong(said, advice)
        else:
            yield warning(said, "see that the server really writes on sync, or move it (STORAGE_PATH)")
    elif kind in TEMPORARY:
        yield warning(said, "it is empty after a restart of the machine: use a disk")
    elif kind == "overlay":
        yield warning(said, "in a container's own layer it is gone with the container: mount a volume here")
    else:
        yield well(said)


def _strangers(name: str, folder: Path) -> Iterator[Finding]:
    """What belongs to somebody else the service may be unable to open: left by a start as another user."""
    ours = os.geteuid()
    others = sorted(path.name for path in folder.iterdir() if path.lstat().st_uid != ours)
    if others and ours != 0:
        some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        yield wrong(f"{name}: {some} belong to another user than this one ({ours})", f"chown -R {ours} {folder}")
    elif others:
        yield warning(
            f"{name}: this is root, and the files belong to somebody else",
            "run this as the service's own user: root can do more than that one",
        )


def _to_be_made(name: str, folder: Path) -> Finding:
    there = _nearest(folder)
    if os.access(there, os.W_OK | os.X_OK):
        return well(f"{name} {folder} will be made at the first start")
    advice = f"make it, and give it to the service's user: install -d -m 700 -o {os.geteuid()} {folder}"
    return wrong(f"{name} {folder} is not there, and can't be made in {there}", advice)


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _probe(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as stream:  # without a name: nothing is left of one that was killed
        stream.write(b"probe")
        stream.flush()
        os.fsync(stream.fileno())
