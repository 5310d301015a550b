"""The outbox of webhooks: what waits for which endpoint, and the log of attempts.

Methods that change something raise DatabaseUnavailable, and reads raise sqlite3.Error, if the database refuses.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

import aiosqlite

from ...lazy_dataclass import dataclass
from .database import Readers
from .events import event
from .model import as_text, now
from .sql import QUERIES
from .writer import Writer

Ended = Literal["delivered", "given_up"]
State = Literal["waiting", "held", "delivered", "given_up"]
KEPT = timedelta(days=30)  # deliveries that have ended, and attempts
GIVEN_UP_AFTER = timedelta(days=3)
PAGE = 500  # rows of one transaction
LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of the outbox. `attempts` are those that have ended."""

    id: int
    webhook: str
    message_id: str
    event_type: str
    image_id: str
    job_id: str
    occurred_at: str
    attempts: int
    waiting_since: str

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        return cls(*(row[name] for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt ended: by the status of an answer, or without one by a reason."""

    started_at: str
    status: int | None
    reason: str | None
    milliseconds: int


@dataclass(frozen=True, slots=True)
class EndpointState:
    """What the table knows of an endpoint. `oldest`: since when its first row waits."""

    name: str
    configured: bool
    waiting: int
    most_waiting: int
    oldest: str | None
    switched_off_at: str | None
    overflowed_at: str | None


class WebhookTable:
    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers = readers
        self._write = writer.write

    async def configure(self, endpoints: Iterable[tuple[str, Sequence[str], Sequence[str]]]) -> None:
        """Make the table know (name, events, buckets) of the settings; all other names are no longer configured."""
        wanted = list(endpoints)
        names = json.dumps([name for name, _, _ in wanted])

        async def change(db: aiosqlite.Connection) -> None:
            await db.execute(QUERIES["webhooks_not_configured"], {"names": names})
            for name, events, buckets in wanted:
                values = {"name": name, "events": json.dumps(list(events)), "buckets": json.dumps(list(buckets))}
                await db.execute(QUERIES["webhook_configured"], values)

        await self._write(change)

    async def clamp(self, webhook: str, latest: datetime) -> None:
        values = {"webhook": webhook, "latest": as_text(latest)}
        await self._write(lambda db: _rows(db, "clamp_deliveries", values))

    async def due(self, webhook: str, moment: datetime, limit: int) -> list[Delivery]:
        values = {"webhook": webhook, "now": as_text(moment), "limit": limit}
        return [Delivery.of(row) for row in await self._readers.fetch("deliveries_due", values)]

    async def next_due(self, webhook: str, moment: datetime) -> datetime | None:
        """When the next row that is not due at this moment will be."""
        rows = await self._readers.fetch("next_delivery", {"webhook": webhook, "now": as_text(moment)})
        return datetime.fromisoformat(rows[0]["at"]) if rows[0]["at"] else None

    async def record(
        self, delivery: Delivery, attempt: Attempt, outcome: Ended | datetime, *, switch_off: bool = False
    ) -> None:
        """Log the attempt; the row has ended, or its next attempt is at a time.

        `switch_off`: the endpoint wants no more.
        """
        values = {
            "id": delivery.id,
            "webhook": delivery.webhook,
            "attempts": delivery.attempts + 1,
            "started_at": attempt.started_at,
            "status": attempt.status,
            "reason": attempt.reason,
            "milliseconds": attempt.milliseconds,
            "now": as_text(now()),
        }

        async def change(db: aiosqlite.Connection) -> None:
            await db.execute(QUERIES["delivery_attempted"], values)
            if isinstance(outcome, datetime):
                await db.execute(QUERIES["delivery_again"], values | {"next_attempt_at": as_text(outcome)})
            else:
                await db.execute(QUERIES["delivery_ended"], values | {"state": outcome})
            if switch_off and await _rows(db, "switch_webhook_off", values):
                await event(db, "webhook_switched_off", None, None, {"webhook": delivery.webhook, "status": 410})

        await self._write(change)

    async def endpoints(self) -> dict[str, EndpointState]:
        """By name; those that are no longer configured too."""
        found = {}
        for row in await self._readers.fetch("webhook_endpoints", {}):
            found[row["name"]] = EndpointState(
                row["name"],
                bool(row["configured"]),
                row["waiting"],
                row["most_waiting"],
                row["oldest"],
                row["switched_off_at"],
                row["overflowed_at"],
            )
        return found

    async def log(self, webhook: str, limit: int) -> list[dict[str, Any]]:
        """The latest attempts, newest first."""
        rows = await self._readers.fetch("delivery_log", {"webhook": webhook, "limit": limit})
        return [dict(row) for row in rows]

    async def enable(self, webhook: str) -> bool:
        """Switch an endpoint on again, and make what waits for it due; False if it was not switched off."""
        values = {"webhook": webhook, "now": as_text(now())}

        async def change(db: aiosqlite.Connection) -> bool:
            was_off = await _rows(db, "switch_webhook_on", values) > 0
            await db.execute(QUERIES["deliveries_at_once"], values)
            if was_off:
                await event(db, "webhook_switched_on", None, None, {"webhook": webhook})
            return was_off

        return await self._write(change)

    async def replay(
        self, webhook: str, states: Sequence[State], since: datetime | None = None, image_id: str | None = None
    ) -> int:
        """Let deliveries in these states wait once more, in their order; returns their number."""
        values = {
            "webhook": webhook,
            "states": json.dumps(list(states)),
            "since": as_text(since or LONG_AGO),
            "image_id": image_id,
            "now": as_text(now()),
            "limit": PAGE,
        }
        total = 0
        while changed := await self._write(lambda db: _rows(db, "replay_deliveries", values)):
            total += changed
        if total:
            details = {"webhook": webhook, "deliveries": total}
            await self._write(lambda db: event(db, "webhook_replayed", None, None, details))
        return total

    async def tidy(self) -> None:
        """Give up deliveries of endpoints that are gone or off, and drop those older than KEPT."""
        old, moment = as_text(now() - KEPT), as_text(now())
        for query, before in (
            ("give_up_unsent", as_text(now() - GIVEN_UP_AFTER)),
            ("drop_deliveries", old),
            ("drop_attempts", old),
        ):
            values = {"before": before, "now": moment, "limit": PAGE}
            while await self._write(lambda db, query=query, values=values: _rows(db, query, values), frees=True):  # type: ignore[misc]
                pass


async def _rows(db: aiosqlite.Connection, query: str, values: dict[str, Any]) -> int:
    return (await db.execute(QUERIES[query], values)).rowcount
