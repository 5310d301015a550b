"""Space in the data folder for the writes of a deletion, kept in a file: without it a disk that others have filled
could not be emptied, since marking a row as deleted takes some pages of the write-ahead log too.
"""

import os
from pathlib import Path

import structlog

log = structlog.get_logger()

NAME = "space_reserve"
SIZE = 4 << 20  # bytes: as far as the log grows before SQLite writes it back and starts it over (1,000 pages)
LOW = 1 << 20  # bytes free at a start, below which it may be the log itself that can't be made


class SpaceReserve:
    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME

    def release_if_low(self) -> None:
        """Give the space back where hardly any is left. Call before the database is opened."""
        if _free(self._path.parent) < LOW:
            self.release()

    def release(self) -> bool:
        """Give the space back; whether there was some."""
        try:
            held = _held(self._path)
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("space_reserve_not_released", reason=error.strerror)
            return False
        if held:
            log.warning("space_reserve_used", freed_bytes=held, reason="the disk is full: deletions go on")
        return held > 0

    def fill(self) -> None:
        """Take the space, if as much again stays free."""
        try:
            if _held(self._path) >= SIZE or _free(self._path.parent) < 2 * SIZE:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, SIZE)
            finally:
                os.close(descriptor)
        except (OSError, AttributeError) as error:  # AttributeError: a system without that call
            log.info("space_reserve_not_filled", reason=str(error))


def _held(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
