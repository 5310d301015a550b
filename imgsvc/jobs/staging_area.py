"""The staging folder: uploads that are not processed yet.

`{id}.part` is an upload in progress. `{id}` is a complete one, whose bytes and name are durable; its row is inserted
after that. A complete one without a row may belong to a lost database: it is set aside, and removed after `KEPT`.
"""

import os
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path

import structlog

from ..lazy_dataclass import dataclass
from ..storage.durable_files import make_root, sync_folder
from ..storage.keys import UUID

log = structlog.get_logger()

KEPT = timedelta(days=7)  # by the file's mtime, which is set to the wall clock's time when it is set aside
OURS = re.compile(rf"(?P<job_id>{UUID})(?P<part>\.part)?")
MAX_REPORTED = 1000  # foreign names that are remembered, so that each is logged once


@dataclass(frozen=True, slots=True)
class Staged:
    """A file of ours in the staging folder. `part`: the upload is not complete."""

    name: str
    job_id: str
    part: bool


@dataclass(frozen=True, slots=True)
class SetAside:
    """Number and size of the uploads in `orphaned`."""

    files: int = 0
    bytes: int = 0


class StagingArea:
    """`orphaned` is the folder for uploads that are set aside, on the same disk.

    The methods that access files block, so call them in a thread. They raise OSError.
    """

    def __init__(self, folder: Path, orphaned: Path) -> None:
        self.folder = folder
        self.orphaned = orphaned
        self.set_aside = SetAside()  # as last measured
        self._receiving: set[str] = set()
        self._told: set[str] = set()

    @contextmanager
    def receiving(self, job_id: str) -> Iterator[None]:
        """Protect the files of this upload from cleanup until its row can be read or the upload has failed."""
        self._receiving.add(job_id)
        try:
            yield
        finally:
            self._receiving.discard(job_id)

    def is_in_use(self, job_id: str) -> bool:
        return job_id in self._receiving

    def whole(self, job_id: str) -> Path:
        return self.folder / job_id

    def part(self, job_id: str) -> Path:
        return self.folder / f"{job_id}.part"

    def make(self) -> bool:
        """Create the folder durably if it is missing; returns whether it was created."""
        if self.folder.is_dir():
            return False
        make_root(self.folder, 0o700)
        return True

    def batches(self, most: int) -> Generator[list[Staged], None, None]:
        """All staged files of ours, at most so many at a time. Other files are left alone and logged once.

        Each upload that waits has a file: a list of all would be the largest thing in this process's memory.
        """
        with os.scandir(self.folder) as entries:
            ours = (one for entry in entries if (one := self._staged(entry)))
            while batch := list(islice(ours, most)):
                yield batch

    def _staged(self, entry: os.DirEntry[str]) -> Staged | None:
        if entry.is_dir():  # for example lost+found of a mounted disk
            return None
        if ours := OURS.fullmatch(entry.name):
            return Staged(entry.name, ours["job_id"], ours["part"] is not None)
        if entry.name not in self._told and len(self._told) < MAX_REPORTED:
            self._told.add(entry.name)
            log.warning("foreign_file_in_staging", name=entry.name)
        return None

    def put_aside(self, name: str) -> None:
        """Move a complete upload to `orphaned`, durably."""
        make_root(self.orphaned, 0o700)
        path = self.folder / name
        with path.open("rb") as stream:
            os.utime(stream.fileno())
            os.fsync(stream.fileno())
        path.rename(self.orphaned / name)
        sync_folder(self.orphaned)
        sync_folder(self.folder)

    def drop_expired(self) -> list[str]:
        """Remove uploads that were set aside longer than KEPT ago; returns their names."""
        before, gone = time.time() - KEPT.total_seconds(), []
        for path in self._orphans():
            if path.stat().st_mtime < before:
                path.unlink(missing_ok=True)
                gone.append(path.name)
        return gone

    def measure(self) -> SetAside:
        """Count the uploads that are set aside now."""
        sizes = []
        for path in self._orphans():
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        self.set_aside = SetAside(len(sizes), sum(sizes))
        return self.set_aside

    def _orphans(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return [path for path in self.orphaned.iterdir() if OURS.fullmatch(path.name)]
        return []
