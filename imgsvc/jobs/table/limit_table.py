"""What users have used of their limits: uploads in the current window, images and bytes.

Methods that change something raise DatabaseUnavailable, and reads raise sqlite3.Error, if the database refuses.
"""

from . import transactions
from .admission_memory import AdmissionMemory
from .byte_quota import Usage, UsageOfUser
from .database import Readers
from .model import as_text, now
from .quota import Quota, RateLimitStatus, Window, standing
from .writer import Writer


class LimitTable:
    def __init__(self, readers: Readers, writer: Writer, memory: AdmissionMemory) -> None:
        self.memory = memory
        self._readers = readers
        self._write = writer.write

    async def admission(
        self, org_id: str, user_id: str, quota: Quota, fewer_than: int = 0
    ) -> tuple[int, RateLimitStatus]:
        """The number of jobs that wait for a lane, and how much of the quota is left. Uses none of it.

        A number below `fewer_than` may be higher than that of the jobs.
        """
        known = self.memory.known(org_id, user_id, fewer_than)
        if known is not None:
            jobs, window = known
            return jobs, standing(window, quota, now())
        changes = self.memory.changes
        (row,) = await self._readers.fetch("admission", {"org_id": org_id, "user_id": user_id})
        self.memory.counted(row["jobs"], changes)
        return row["jobs"], standing(Window.of(row), quota, now())

    async def usage(self, org_id: str, user_id: str) -> Usage:
        """What the user and the organisation have stored."""
        rows = await self._readers.fetch("used", {"org_id": org_id, "user_id": user_id})
        (counting,) = await self._readers.fetch("counting", {})
        return Usage.of(rows, counting)

    async def usage_from(self, org_id: str, user_id: str, limit: int) -> list[UsageOfUser]:
        """Users with what they have stored, by organisation and name, from this one on."""
        values = {"org_id": org_id, "user_id": user_id, "limit": limit}
        rows = await self._readers.fetch("usage_from", values)
        return [UsageOfUser(row["org_id"], row["user_id"], row["images"], row["bytes"]) for row in rows]

    async def drop_rate_windows(self, quota: Quota) -> None:
        await self._write(transactions.execute("drop_rate_windows", before=as_text(now() - quota.window)))
