"""Uploads per user in a fixed window, counted in the transaction that inserts the job, so the limit is exact."""

import math
from dataclasses import field
from datetime import datetime, timedelta
from typing import Self

import aiosqlite

from ...lazy_dataclass import dataclass
from ...settings.uploads import ByteQuotas, RateLimit
from .byte_quota import ByteLimits
from .model import as_text, now
from .sql import QUERIES


@dataclass(frozen=True, slots=True)
class Quota:
    """The number of uploads that a user may make in one window, and the bytes that may be stored."""

    max_uploads: int
    window: timedelta
    byte_limits: ByteLimits = field(default_factory=ByteLimits)

    @classmethod
    def of(cls, settings: RateLimit, stored: ByteQuotas | None = None) -> Self:
        """The limits of every user, unless a token has lower ones."""
        limits = ByteLimits.of(stored) if stored else ByteLimits()
        return cls(settings.max_uploads, timedelta(minutes=settings.window_minutes), limits)


@dataclass(frozen=True, slots=True)
class Window:
    """A user's stored window: its start (RFC 3339), and the uploads counted in it."""

    start: str
    count: int

    @classmethod
    def of(cls, row: aiosqlite.Row | None) -> Self | None:
        return cls(row["window_start"], row["upload_count"]) if row and row["window_start"] else None


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """A user's usage of the current window; `reset` is the window's real end."""

    limit: int
    used: int
    reset: datetime

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def retry_after(self) -> int:
        """Seconds until the window ends, rounded up."""
        return max(1, math.ceil((self.reset - now()).total_seconds()))


class RateLimited(Exception):
    """The user has used up the window's quota."""

    def __init__(self, standing: RateLimitStatus, quota: Quota) -> None:
        super().__init__(f"{standing.used} of {standing.limit}")
        self.standing, self.quota = standing, quota


def standing(window: Window | None, quota: Quota, moment: datetime) -> RateLimitStatus:
    """The status by the stored window. One that has ended, or starts in the future (clock set back), starts over."""
    start, used = moment, 0
    if window is not None:
        stored = datetime.fromisoformat(window.start)
        if stored <= moment < stored + quota.window:
            start, used = stored, window.count
    return RateLimitStatus(quota.max_uploads, used, start + quota.window)


async def acquire(db: aiosqlite.Connection, org_id: str, user_id: str, quota: Quota) -> RateLimitStatus:
    """Count one upload; part of the caller's transaction. Raises RateLimited."""
    moment, who = now(), {"org_id": org_id, "user_id": user_id}
    row = await (await db.execute(QUERIES["rate_window"], who)).fetchone()
    before = standing(Window.of(row), quota, moment)
    if not before.remaining:
        raise RateLimited(before, quota)
    after = RateLimitStatus(before.limit, before.used + 1, before.reset)
    start = as_text(before.reset - quota.window)
    await db.execute(QUERIES["set_rate_window"], {**who, "window_start": start, "upload_count": after.used})
    return after
