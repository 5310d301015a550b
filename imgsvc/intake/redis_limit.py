"""The rate limit in a Redis that several instances share.

Each command is one Lua script, since taking a slot depends on what was read: MULTI can't decide, and counting first
and undoing later would refuse uploads that still have a slot. The script's text is sent every time (EVAL), so that it
also works after a restart of Redis.
"""

from datetime import UTC, datetime, timedelta
from importlib.resources import files

from ..jobs.table.quota import Quota, RateLimited, RateLimitStatus
from ..lazy_dataclass import dataclass
from ..settings import Settings
from .redis_connection import Command, RedisConnection

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
PROBE_WINDOW = timedelta(minutes=1)
MANY = 1 << 30


def _script(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


ACQUIRE, RELEASE = _script("acquire.lua"), _script("release.lua")


@dataclass(frozen=True, slots=True)
class Reservation:
    """A slot in the window that began at `start` (microseconds since 1970 by the clock of Redis)."""

    key: str
    start: int
    standing: RateLimitStatus


class RedisRateLimit:
    def __init__(self, url: str, timeout_seconds: float, prefix: str) -> None:
        """Raises SettingsError."""
        self._prefix = prefix
        key = f"{prefix}probe"
        trial = [_acquire(key, Quota(MANY, PROBE_WINDOW), 1), ("DEL", key)]
        self.connection = RedisConnection(url, timeout_seconds, trial)

    @classmethod
    def of(cls, settings: Settings) -> "RedisRateLimit":
        redis = settings.redis
        return cls(redis.url.get_secret_value(), redis.timeout_ms / 1000, redis.prefix)

    async def reserve(self, org_id: str, user_id: str, quota: Quota) -> Reservation | None:
        """Take a slot; None while Redis is unavailable. A cancelled call takes none. Raises RateLimited."""
        key = self.key(org_id, user_id)

        def release_slot(answer: list[int]) -> None:
            if answer[0]:
                self.release(_reservation(key, quota, answer))

        answer: list[int] | None = await self.connection.request(_acquire(key, quota, 1), release_slot)
        if answer is None:
            self.connection.skipped += 1
            return None
        reservation = _reservation(key, quota, answer)
        if not answer[0]:
            raise RateLimited(reservation.standing, quota)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """Release the slot, unless its window has ended. Call at most once."""
        self.connection.send(("EVAL", RELEASE, 1, reservation.key, reservation.start))

    def forget(self, org_id: str, user_id: str) -> None:
        """Remove the user's window, whose key names them: now, or once Redis is back."""
        self.connection.send(("DEL", self.key(org_id, user_id)))

    async def standing(self, org_id: str, user_id: str, quota: Quota) -> RateLimitStatus | None:
        """How much is left for all instances together; None while Redis is unavailable. Uses none of it."""
        key = self.key(org_id, user_id)
        answer: list[int] | None = await self.connection.request(_acquire(key, quota, 0))
        return None if answer is None else _reservation(key, quota, answer).standing

    def key(self, org_id: str, user_id: str) -> str:
        """The key. It contains the org's length, so that the org `a:b` with user `c` differs from `a` with `b:c`."""
        return f"{self._prefix}uploads:{len(org_id)}:{org_id}:{user_id}"


def _acquire(key: str, quota: Quota, slots: int) -> Command:
    return ("EVAL", ACQUIRE, 1, key, quota.max_uploads, quota.window // MICROSECOND, slots)


def _reservation(key: str, quota: Quota, answer: list[int]) -> Reservation:
    _, used, start = answer
    reset = EPOCH + timedelta(microseconds=start) + quota.window
    return Reservation(key, start, RateLimitStatus(quota.max_uploads, used, reset))
