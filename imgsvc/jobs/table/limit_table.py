"""What users have used of their limits: uploads in the current window, images and bytes.

Methods that change something raise DatabaseUnavailable, and reads raise sqlite3.Error, if the database refuses.
"""

from . import transactions
from .byte_quota import Usage, UsageOfUser
from .database import Readers
from .model import as_text, now
from .quota import Quota, RateLimitStatus, standing
from .writer import Writer


class LimitTable:
    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers = readers
        self._write = writer.write

    async def admission(self, org_id: str, user_id: str, quota: Quota) -> tuple[int, RateLimitStatus]:
        """The number of jobs that wait for a lane, and how much of the quota is left. Uses none of it."""
        (row,) = await self._readers.fetch("admission", {"org_id": org_id, "user_id": user_id})
        return row["jobs"], standing(row if row["window_start"] else None, quota, now())

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
