"""Erases people, as a durable task: each step is committed, and a start takes up what was cut short.

1. The operation's row. From then on the person can't upload, and gets neither key nor ticket.
2. Pages of images: rows and personal fields in one transaction each, the files after it.
3. The other tables, then the audit trail, in which a random mark replaces the names.
4. The end, once storage has confirmed that all files are gone.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from .housekeeping import Housekeeping
from .revocations import Revocations
from .staging_area import StagingArea
from .table.erasure import Erasure
from .table.job_table import JobTable
from .table.model import Job

log = structlog.get_logger()

PAGE = 100  # images of one transaction
EVENTS = 5_000  # rows of the audit trail of one transaction
AGAIN_SECONDS = 5.0  # after a refusal of database or storage, and while a backup holds deletions
EndRun = Callable[[Job], Awaitable[None]]  # ends the run of a deleted job, and wakes who waits for it
OnEnd = Callable[[str, str], None]


async def no_run(_: Job) -> None:
    """Of a command: nothing runs."""


class Erasing:
    """`on_end` is called with organisation and user when a person has been erased."""

    def __init__(
        self,
        table: JobTable,
        housekeeping: Housekeeping,
        staging_area: StagingArea,
        revocations: Revocations,
        end_run: EndRun = no_run,
        on_end: OnEnd = lambda _org, _user: None,
    ) -> None:
        self._table = table.erasures
        self._housekeeping = housekeeping
        self._staging_area = staging_area
        self._revocations = revocations
        self._end_run = end_run
        self._on_end = on_end
        self._wanted = anyio.Event()

    async def begin(self, org_id: str, user_id: str) -> Erasure:
        """Begin to erase a person; the erasure that runs already, if there is one.

        Once this has returned, it is on disk in the database and beside it. Raises DatabaseUnavailable.
        """
        erasure = await self._table.begin(org_id, user_id)
        self._wanted.set()
        await self._revocations.add_erasure(erasure)
        log.info("person_erasure_begun", erasure_id=erasure.erasure_id)
        return erasure

    async def run(self) -> None:
        """Erase who is to be erased, without end. What fails is repeated."""
        while True:
            self._wanted = anyio.Event()
            left = await self.work()
            with anyio.move_on_after(AGAIN_SECONDS if left else None):
                await self._wanted.wait()

    async def work(self) -> bool:
        """Go on with each erasure as far as it goes now; whether any is left."""
        left = False
        try:
            for erasure in await self._table.running():
                left |= not await self._goes_to_end(erasure)
        except sqlite3.Error as error:
            log.warning("person_erasure_failed", reason=str(error))
            return True
        return left

    async def _goes_to_end(self, erasure: Erasure) -> bool:
        """One that fails must not keep the others waiting."""
        try:
            return await self._erase(erasure)
        except Exception as error:
            log.warning("person_erasure_failed", erasure_id=erasure.erasure_id, reason=str(error))
            return False

    async def _erase(self, erasure: Erasure) -> bool:
        """Whether it has ended. Raises sqlite3.Error, DatabaseUnavailable or OSError."""
        await self._revocations.add_erasure(erasure)
        if erasure.step == "images":
            await self._erase_images(erasure)
        if erasure.step in ("images", "tables"):
            await self._table.clear_tables(erasure)
        if erasure.step != "files":
            while await self._table.clear_events(erasure, EVENTS):
                pass
        await self._remove_files(erasure)
        if not await self._table.end(erasure):
            return False
        log.info("person_erased", erasure_id=erasure.erasure_id)
        if erasure.org_id is not None and erasure.user_id is not None:
            self._on_end(erasure.org_id, erasure.user_id)
        return True

    async def _erase_images(self, erasure: Erasure) -> None:
        set_aside = await anyio.to_thread.run_sync(_digests, self._staging_area.orphaned)
        while jobs := await self._table.delete_page(erasure, PAGE):
            removed = sum([await self._remove(job) for job in jobs])
            found = await anyio.to_thread.run_sync(_remove_set_aside, set_aside, jobs)
            await self._table.add(erasure, Counter(files=removed, set_aside=found))

    async def _remove_files(self, erasure: Erasure) -> None:
        """What could not be removed with its page. A backup holds removals back: then they come later."""
        after = ""
        while jobs := await self._table.with_files(erasure, after, PAGE):
            after = jobs[-1].job_id
            removed = sum([await self._remove(job) for job in jobs])
            await self._table.add(erasure, Counter(files=removed))

    async def _remove(self, job: Job) -> int:
        await self._end_run(job)
        return 0 if self._housekeeping.holds_back else await self._housekeeping.remove_files(job)


def _digests(folder: Path) -> dict[str, Path]:
    """{SHA-256: path} of the uploads that are set aside. They have no row: only their bytes say whose they are."""
    found = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file():
            with path.open("rb") as stream:
                found[hashlib.file_digest(stream, "sha256").hexdigest()] = path
    return found


def _remove_set_aside(set_aside: dict[str, Path], jobs: list[Job]) -> int:
    """Remove those with the bytes or the ID of an erased job; returns their number."""
    ids, digests = {job.job_id for job in jobs}, {job.sha256 for job in jobs}
    mine = [path for digest, path in set_aside.items() if digest in digests or path.name in ids]
    removed = sum(path.exists() for path in mine)
    for path in mine:
        path.unlink(missing_ok=True)
    return removed
