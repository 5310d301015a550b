"""One process per data folder, by `flock`: the kernel lets go of it however the holder ends.

The file says who holds it and where it listens, for the commands that speak to the running service.
"""

import fcntl
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import anyio

POLL_SECONDS = 0.05
BRIEF_SECONDS = 0.2  # for a command that won't wait for a service: `holder` of another one has the lock for a moment
NAME = "lock"
RESTORING = "restoring"  # a file: a backup is being put back here, and the database comes last


class DataFolderInUse(Exception):
    """Another process holds the data folder, or has left half a restored backup there; the message says which."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the data folder. `address` is a URL; empty while it does not listen. `run` names this very holding."""

    pid: str
    address: str
    run: str


@dataclass(frozen=True, slots=True)
class DataFolderLock:
    """Held until its context ends. `run` is random: what was made for one run is worth nothing in the next."""

    run: str
    _descriptor: int

    def announce(self, address: str) -> None:
        """Note the URL that this process listens on; an empty one before it ceases to, since another may then.

        On a full disk the note is left empty: commands then find that a service runs, and not where. Raises OSError
        when what was noted before can't be removed.
        """
        text = f"{os.getpid()}\n{address}\n{self.run}\n"
        os.ftruncate(self._descriptor, 0)
        with suppress(OSError):
            os.pwrite(self._descriptor, text.encode(), 0)


@asynccontextmanager
async def data_folder_lock(folder: Path, wait_seconds: float) -> AsyncIterator[DataFolderLock]:
    """Hold `folder` for this process, waiting for a predecessor that is still ending. Raises DataFolderInUse."""
    descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise DataFolderInUse(f"the data folder {folder} is in use by process {_holder(descriptor).pid}")
            await anyio.sleep(POLL_SECONDS)
        lock = DataFolderLock(secrets.token_hex(16), descriptor)
        lock.announce("")
        yield lock
    finally:
        os.close(descriptor)


def holder(folder: Path) -> Holder | None:
    """The process that holds `folder` right now; None if nobody does. Raises OSError."""
    try:
        descriptor = os.open(folder / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _try_lock(descriptor, fcntl.LOCK_SH) else _holder(descriptor)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> Holder:
    lines = [*os.pread(descriptor, 1024, 0).decode("ascii", "replace").split("\n"), "", ""]
    return Holder(lines[0] or "unknown", lines[1], lines[2])


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
