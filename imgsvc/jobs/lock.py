"""One process per data folder, by `flock`: the kernel releases the lock however the process ends.

The lock file records the process and its address, for commands that call the running service.
"""

import fcntl
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio

from ..lazy_dataclass import dataclass
from ..storage.mounts import mount_of

POLL_SECONDS = 0.05
BRIEF_SECONDS = 0.2  # for a command that won't wait for a service: `holder` of another command locks it for a moment
NAME = "lock"
RESTORING = "restoring"  # a marker file: a backup is being restored here, and the database comes last


class DataFolderInUse(Exception):
    """Another process holds the data folder, or a restore into it was not finished. The message gives the details."""


class LocksUnavailable(OSError):
    """The file system of the data folder can't lock files. The message is a whole sentence."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds the data folder. `address` is a URL, or empty. `run` identifies this run."""

    pid: str
    address: str
    run: str


@dataclass(frozen=True, slots=True)
class DataFolderLock:
    """The lock, held until its context ends. `run` is random: credentials made for one run are invalid in the next."""

    run: str
    _descriptor: int

    def announce(self, address: str) -> None:
        """Record the URL that this process listens on; empty before it stops listening, since another may listen then.

        On a full disk the record is left empty: commands then find that a service runs, but not its address. Raises
        OSError if an earlier record can't be removed.
        """
        text = f"{os.getpid()}\n{address}\n{self.run}\n"
        os.ftruncate(self._descriptor, 0)
        with suppress(OSError):
            os.pwrite(self._descriptor, text.encode(), 0)


@asynccontextmanager
async def data_folder_lock(folder: Path, wait_seconds: float) -> AsyncIterator[DataFolderLock]:
    """Lock `folder` for this process, waiting for a predecessor that is still stopping.

    Raises DataFolderInUse or LocksUnavailable.
    """
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _try_lock(folder, descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise DataFolderInUse(f"the data folder {folder} is in use by process {_holder(descriptor).pid}")
            await anyio.sleep(POLL_SECONDS)
        lock = DataFolderLock(secrets.token_hex(16), descriptor)
        lock.announce("")
        yield lock
    finally:
        os.close(descriptor)


def holder(folder: Path) -> Holder | None:
    """The process that holds `folder` now; None if there is none. Raises OSError."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _try_lock(folder, descriptor, fcntl.LOCK_SH) else _holder(descriptor)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> Holder:
    lines = [*os.pread(descriptor, 1024, 0).decode("ascii", "replace").split("\n"), "", ""]
    return Holder(lines[0] or "unknown", lines[1], lines[2])


def _try_lock(folder: Path, descriptor: int, kind: int) -> bool:
    """Whether it is locked now; False: another process has it. Raises LocksUnavailable."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # ENOLCK, ENOTSUP, EINVAL: a share without a lock service
        mount = mount_of(folder)
        where = f"it is on {mount.kind} mounted at {mount.point}"
        words = f"the data folder {folder} can't be locked: {error.strerror}; {where}: move it to a local disk"
        raise LocksUnavailable(f"{words} (DATABASE_PATH)") from error
    return True
