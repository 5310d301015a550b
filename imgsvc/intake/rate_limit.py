"""The rate limiter: counts uploads in this instance's table, and in a Redis that several instances share.

With or without Redis, the table's transaction enforces the limit for this instance.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from ..jobs.table.job_table import JobTable
from ..jobs.table.model import NewJob
from ..jobs.table.quota import Quota, RateLimitStatus
from ..jobs.table.transactions import Accepted
from ..storage.thread_visit import AwaitedVisit

if TYPE_CHECKING:
    from .redis_limit import RedisRateLimit, Reservation

CLOSE_SECONDS = 0.5  # for each of two steps of a stop, which has 2 seconds in all for Redis and the database


class RateLimiter:
    """`redis` holds the slots that several instances share; None without a Redis in the settings."""

    def __init__(self, table: JobTable, redis: "RedisRateLimit | None") -> None:
        self._table = table
        self.redis = redis
        self._settling: set[asyncio.Task[Accepted]] = set()

    async def standing(self, org_id: str, user_id: str, quota: Quota) -> RateLimitStatus:
        """How much of the quota is left. Uses none of it."""
        return (await self.admission(org_id, user_id, quota))[1]

    async def admission(
        self, org_id: str, user_id: str, quota: Quota, fewer_than: int = 0
    ) -> tuple[int, RateLimitStatus]:
        """The number of jobs that wait for a lane, and how much of the quota is left: in one look at most at the table.

        A number below `fewer_than` may be higher than that of the jobs.
        """
        waiting, own = await self._table.limits.admission(org_id, user_id, quota, fewer_than)
        shared = await self.redis.standing(org_id, user_id, quota) if self.redis else None
        return waiting, _tighter(own, shared) if shared else own

    async def reserve(self, new: NewJob, quota: Quota) -> "Reservation | None":
        """Take a slot in Redis, to be passed to `accept` at once. A cancelled call takes none. Raises RateLimited.

        Returns None if no slot is taken: without Redis, while it is unavailable, or if the upload was accepted before.
        """
        if self.redis is None:
            return None
        key = new.idempotency_key
        if key is not None and await self._table.has_key(new.org_id, new.user_id, key):
            return None
        return await self.redis.reserve(new.org_id, new.user_id, quota)

    async def accept(
        self,
        new: NewJob,
        quota: Quota,
        reservation: "Reservation | None",
        stored: AwaitedVisit[None] | None = None,
    ) -> Accepted:
        """Like `JobTable.accept`. The slot in Redis is released unless the job was inserted, even after a cancellation.

        Raises RateLimited, QuotaExceeded, IdempotencyConflict, DatabaseUnavailable, or what `stored` has raised.
        """
        accepting = self._table.accept(new, quota, stored)
        if reservation is None or self.redis is None:
            return await self._with_shared_status(await accepting, new, quota)
        settling = asyncio.create_task(self._settle(self.redis, accepting, new, quota, reservation))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        return await asyncio.shield(settling)  # only a separate task survives to learn whether the job was inserted

    async def _settle(
        self,
        redis: "RedisRateLimit",
        accepting: Awaitable[Accepted],
        new: NewJob,
        quota: Quota,
        reservation: "Reservation",
    ) -> Accepted:
        try:
            accepted = await accepting
        except Exception:
            redis.release(reservation)
            raise
        if accepted.replayed:
            redis.release(reservation)
            return await self._with_shared_status(accepted, new, quota)
        return replace(accepted, standing=_tighter(accepted.standing, reservation.standing))

    async def _with_shared_status(self, accepted: Accepted, new: NewJob, quota: Quota) -> Accepted:
        """Give a repeated upload, which takes no slot, the status that is valid for all instances."""
        shared = None
        if accepted.replayed and self.redis is not None:
            shared = await self.redis.standing(new.org_id, new.user_id, quota)
        return replace(accepted, standing=_tighter(accepted.standing, shared)) if shared else accepted

    def forget(self, org_id: str, user_id: str) -> None:
        """Forget an erased person in Redis too. What is not sent, because Redis or the service ends, ends by itself."""
        if self.redis is not None:
            self.redis.forget(org_id, user_id)

    async def close(self) -> None:
        """Stop: wait for calls in flight, and send pending releases."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=CLOSE_SECONDS)
        if self.redis is not None:
            with anyio.CancelScope(shield=True):
                await self.redis.connection.flush(CLOSE_SECONDS)


def _tighter(one: RateLimitStatus, other: RateLimitStatus) -> RateLimitStatus:
    """The status that allows less; of two equal ones the one whose window ends later."""
    return min(one, other, key=lambda each: (each.remaining, -each.reset.timestamp()))
