"""The places of a quota: those in this instance's own table, and those in the Redis that several instances share.

The table's transaction stays the law for this instance, whether there is a Redis or not.
"""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from ..jobs.table.job_table import JobTable
from ..jobs.table.model import NewJob
from ..jobs.table.quota import Quota, RateLimitStatus
from ..jobs.table.transactions import Accepted

if TYPE_CHECKING:
    from .redis_limit import RedisRateLimit, Reservation

CLOSE_SECONDS = 0.5  # for each of two steps of a stop, which has 2 seconds for all of Redis and the database


class RateLimiter:
    """`redis` holds the places that several instances share; None without a Redis in the settings."""

    def __init__(self, table: JobTable, redis: "RedisRateLimit | None") -> None:
        self._table = table
        self.redis = redis
        self._settling: set[asyncio.Task[Accepted]] = set()

    async def standing(self, org_id: str, user_id: str, quota: Quota) -> RateLimitStatus:
        """How much is left, without taking any."""
        own = await self._table.standing(org_id, user_id, quota)
        shared = await self.redis.standing(org_id, user_id, quota) if self.redis else None
        return _tighter(own, shared) if shared else own

    async def reserve(self, new: NewJob, quota: Quota) -> "Reservation | None":
        """Take a shared place, to be handed to `accept` at once. Cancelled, it takes none. Raises RateLimited.

        None where none is shared: without Redis, while it is away, and for an upload that was accepted before.
        """
        if self.redis is None:
            return None
        key = new.idempotency_key
        if key is not None and await self._table.has_key(new.org_id, new.user_id, key):
            return None
        return await self.redis.reserve(new.org_id, new.user_id, quota)

    async def accept(self, new: NewJob, quota: Quota, place: "Reservation | None") -> Accepted:
        """As `Table.accept`. The shared place goes back unless the job was inserted, whoever is cancelled meanwhile.

        Raises RateLimited, IdempotencyConflict, DatabaseUnavailable.
        """
        if place is None or self.redis is None:
            return await self._told(await self._table.accept(new, quota), new, quota)
        settling = asyncio.create_task(self._settle(self.redis, new, quota, place))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        return await asyncio.shield(settling)  # only a task of its own lives to learn what became of the job

    async def _settle(self, mirror: "RedisRateLimit", new: NewJob, quota: Quota, place: "Reservation") -> Accepted:
        try:
            accepted = await self._table.accept(new, quota)
        except Exception:
            mirror.release(place)
            raise
        if accepted.replayed:
            mirror.release(place)
            return await self._told(accepted, new, quota)
        return replace(accepted, standing=_tighter(accepted.standing, place.standing))

    async def _told(self, accepted: Accepted, new: NewJob, quota: Quota) -> Accepted:
        """A repeated upload takes no place; what it hears of the limit is true for all instances nevertheless."""
        shared = None
        if accepted.replayed and self.redis is not None:
            shared = await self.redis.standing(new.org_id, new.user_id, quota)
        return replace(accepted, standing=_tighter(accepted.standing, shared)) if shared else accepted

    async def close(self) -> None:
        """At a stop: let what is under way end, and what is to be given back go out."""
        if self._settling:
            await asyncio.wait(self._settling, timeout=CLOSE_SECONDS)
        if self.redis is not None:
            with anyio.CancelScope(shield=True):
                await self.redis.line.flush(CLOSE_SECONDS)


def _tighter(one: RateLimitStatus, other: RateLimitStatus) -> RateLimitStatus:
    """What really limits; among equals the one that lasts longer."""
    return min(one, other, key=lambda each: (each.remaining, -each.reset.timestamp()))
