"""One process per data folder, by `flock`: the kernel lets go of it however the holder ends."""

import fcntl
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

POLL_SECONDS = 0.05


class DataFolderInUse(Exception):
    """Another process holds the data folder; the message says which."""


@asynccontextmanager
async def data_folder_lock(folder: Path, wait_seconds: float) -> AsyncIterator[None]:
    """Hold `folder` for this process, waiting for a predecessor that is still ending. Raises DataFolderInUse."""
    path = folder / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + wait_seconds
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 64, 0).decode("ascii", "replace").strip() or "unknown"
                raise DataFolderInUse(f"the data folder {folder} is in use by process {holder}")
            await anyio.sleep(POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
