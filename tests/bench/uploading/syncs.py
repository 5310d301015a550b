"""What the service makes durable, without the service: a file, its folder, and a commit in a write-ahead log."""

import os
from pathlib import Path
from typing import BinaryIO

COMMIT = bytes(5 * 4120)  # bytes: what a change of a job's row appends to SQLite's log, five pages and their headers
ROUND = 200  # commits, or 1000 pages, after which SQLite begins anew in the place of the old ones


class Commits:
    """A log that each commit writes to and syncs, as SQLite does with `synchronous=FULL`.

    It never grows: a sync that has to record a new size would take longer than one of SQLite's.
    """

    def __init__(self, path: Path) -> None:
        self._log = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._count = 0
        for _ in range(ROUND):
            os.write(self._log, COMMIT)
        os.fsync(self._log)

    def commit(self) -> None:
        os.pwrite(self._log, COMMIT, self._count % ROUND * len(COMMIT))
        os.fdatasync(self._log)
        self._count += 1


def store(stream: BinaryIO, written: Path, target: Path) -> None:
    """Sync the file, give it its name, and sync the folder."""
    stream.flush()
    os.fsync(stream.fileno())
    written.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
