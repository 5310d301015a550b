"""Reads all jobs page by page, for tasks that compare the rows with the stored files, or copy them."""

import json
from collections.abc import AsyncIterator, Callable, Iterable

from ...lazy_dataclass import dataclass
from .database import Readers
from .model import Job

PAGE = 100  # rows in one query, which occupy the event loop for some milliseconds

OnProgress = Callable[[int, int], None]  # called with (rows read, rows in all)


@dataclass(frozen=True, slots=True)
class Owner:
    """A job, and the (backend, key) of further files that are or may be its image's: being made, or replaced."""

    job: Job
    further: frozenset[tuple[str, str]]


class JobScan:
    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def jobs(self, on_progress: OnProgress) -> AsyncIterator[Job]:
        """All jobs that are not deleted, in order of acceptance, including those accepted during the scan."""
        after, last = 0, await self._last()
        while after < last:
            upto = min(after + PAGE, last)
            for row in await self._readers.fetch("jobs_between", {"after": after, "upto": upto}):
                yield Job.of(row)
            after = upto
            if after == last:
                last = await self._last()
            on_progress(after, last)

    async def owners(self, image_ids: Iterable[str]) -> dict[str, Owner]:
        """{image id: owner} for images that exist, or that were deleted."""
        rows = await self._readers.fetch("owners", {"image_ids": json.dumps(sorted(set(image_ids)))})
        return {row["image_id"]: Owner(Job.of(row), frozenset(map(tuple, json.loads(row["further"])))) for row in rows}

    async def _last(self) -> int:
        return int((await self._readers.fetch("last_row", {}))[0][0])
