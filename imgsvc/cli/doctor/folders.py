"""Checks the folders: writable, on a suitable disk, with enough space."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ...settings import Settings
from ...settings.fields import MEGABYTE
from ...storage.durable_files import syncs_folders
from ...storage.mounts import mount_of
from .finding import Finding, warning, well, wrong

TEMPORARY = ("tmpfs", "ramfs")
FEW_INODES = 10_000  # an image takes about five files


def folders(settings: Settings) -> Iterator[Finding]:
    for name, folder in used(settings):
        file = next((path for path in (folder, *folder.parents) if path.exists() and not path.is_dir()), None)
        if file:
            setting = "STORAGE_PATH" if name == "storage folder" else "DATABASE_PATH"
            yield wrong(f"{name} {folder}: {file} is a file", f"move that file away, or set {setting} to a folder")
            continue
        if not folder.is_dir():
            yield _to_be_made(name, folder)
            continue
        try:
            _probe(folder)
        except OSError as error:
            ours, owner = os.geteuid(), folder.stat().st_uid
            yield wrong(
                f"{name} {folder} can't be written: {error.strerror} (it belongs to user {owner}, this is {ours})",
                f"chown -R {ours} {folder}, or run as its owner",
            )
            continue
        yield from _kind(name, folder)
        if not syncs_folders(folder):
            yield warning(
                f"{name} {folder}: its file system can't sync folders",
                "a power failure may lose the last files there: use a local disk",
            )
        yield from _other_owners(name, folder)


def space(settings: Settings) -> Iterator[Finding]:
    reserve = settings.storage.reserve_mb * MEGABYTE
    for name, folder in used(settings):
        there = _nearest(folder)
        disk = os.statvfs(there)
        free = disk.f_bavail * disk.f_frsize
        text = f"{name}: {free / MEGABYTE:,.0f} MB free"
        if free < reserve:
            advice = "free some space, or lower [storage] reserve_mb: uploads are refused with 507"
            yield wrong(f"{text}, which is under the reserve of {settings.storage.reserve_mb} MB", advice)
        elif free < 2 * reserve:
            yield warning(f"{text}, and {settings.storage.reserve_mb} MB are kept in reserve", "free some space soon")
        elif disk.f_files and disk.f_favail < FEW_INODES:  # some file systems report no inodes
            yield warning(f"{text}, but only {disk.f_favail:,} inodes", "remove files, or use a file system with more")
        else:
            yield well(text)


def used(settings: Settings) -> list[tuple[str, Path]]:
    """The folders that the service writes to."""
    found = [("data folder", settings.data)]
    if settings.storage.backend == "local":
        found.append(("storage folder", settings.storage.path))
    return [(name, path.absolute()) for name, path in found]


def _kind(name: str, folder: Path) -> Iterator[Finding]:
    mount = mount_of(folder)
    text = f"{name} {folder} is writable, on {mount.kind} mounted at {mount.point}"
    if mount.is_network:
        if name == "data folder":
            advice = "move the database to a local disk (DATABASE_PATH): locks and syncs on a share are not reliable"
            yield wrong(text, advice)
        else:
            yield warning(text, "check that the server really writes on sync, or move it (STORAGE_PATH)")
    elif mount.kind in TEMPORARY:
        yield warning(text, "it is lost when the machine restarts: use a disk")
    elif mount.kind == "overlay":
        yield warning(text, "a container's own layer is lost with the container: mount a volume here")
    else:
        yield well(text)


def _other_owners(name: str, folder: Path) -> Iterator[Finding]:
    """Files of other users, which the service may be unable to open: left by a start as another user."""
    ours = os.geteuid()
    others = sorted(path.name for path in folder.iterdir() if path.lstat().st_uid != ours)
    if others and ours != 0:
        some = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        yield wrong(f"{name}: {some} belong to another user than this one ({ours})", f"chown -R {ours} {folder}")
    elif others:
        yield warning(
            f"{name}: this is root, and the files belong to another user",
            "run this as the service's own user: root can do more than that user",
        )


def _to_be_made(name: str, folder: Path) -> Finding:
    there = _nearest(folder)
    if os.access(there, os.W_OK | os.X_OK):
        return well(f"{name} {folder} will be created at the first start")
    advice = f"create it for the service's user: install -d -m 700 -o {os.geteuid()} {folder}"
    return wrong(f"{name} {folder} does not exist, and can't be created in {there}", advice)


def _nearest(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.is_dir())


def _probe(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder) as stream:  # without a name: nothing is left of one that was killed
        stream.write(b"probe")
        stream.flush()
        os.fsync(stream.fileno())
