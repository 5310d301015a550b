"""All that the rows name, page by page: for whoever compares it with what is stored, or copies it."""

import json
from collections.abc import AsyncIterator, Callable, Iterable

from .database import Readers
from .model import Job

PAGE = 100  # rows in one query: what the event loop makes of them takes it some milliseconds

Looked = Callable[[int, int], None]  # told how many rows have been looked at, and how many there are


class JobScan:
    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def jobs(self, looked: Looked) -> AsyncIterator[Job]:
        """Every job that is not deleted, in the order of their coming, those that come meanwhile too."""
        after, last = 0, await self._last()
        while after < last:
            upto = min(after + PAGE, last)
            for row in await self._readers.fetch("jobs_between", {"after": after, "upto": upto}):
                yield Job.of(row)
            after = upto
            if after == last:
                last = await self._last()
            looked(after, last)

    async def owners(self, image_ids: Iterable[str]) -> dict[str, Job]:
        """{image id: job} of those that exist or did."""
        rows = await self._readers.fetch("owners", {"image_ids": json.dumps(sorted(set(image_ids)))})
        return {row["image_id"]: Job.of(row) for row in rows}

    async def _last(self) -> int:
        return int((await self._readers.fetch("last_row", {}))[0][0])
