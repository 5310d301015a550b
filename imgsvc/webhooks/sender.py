"""Sends what waits in the outbox to its endpoint.

The order of a delivery: (1) change, audit event and outbox row in one COMMIT; (2) POST; (3) COMMIT delivered, or the
next attempt. Killed between 2 and 3, it is sent again with the same `webhook-id`.
"""

import sqlite3
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Literal

import anyio
import structlog
from anyio.abc import TaskGroup

from ..access.guarded_client import GuardedClient, NotCalled
from ..jobs.table.event_feed import EventFeed
from ..jobs.table.job_table import JobTable
from ..jobs.table.model import as_text, now
from ..jobs.table.webhook_table import Attempt, Delivery, WebhookTable
from ..jobs.table.writer import DatabaseUnavailable
from ..lazy_dataclass import dataclass
from ..settings.webhooks import Webhook
from ..storage.base import StorageError
from .message import UrlsOf, body_of, encoded, headers_of
from .pauses import LONGEST_SECONDS, next_attempt

log = structlog.get_logger()

ATTEMPT_SECONDS = 15.0
ANSWER_BYTES = 64 * 1024
AT_ONCE = 8  # requests to one endpoint
AGAIN_SECONDS = 5.0  # when the database refuses
LOOK_SECONDS = 60.0  # the longest without a look at the table
GONE = 410

Outcome = Literal["delivered", "refused", "unreachable", "gone", "given_up"]
OnAttempt = Callable[[str, Outcome, float], None]  # (name, outcome, seconds)


@dataclass(frozen=True, slots=True)
class Posted:
    """What a test of an endpoint gave."""

    attempt: Attempt
    ok: bool


class WebhookSender:
    """Sends to one endpoint."""

    def __init__(
        self, endpoint: Webhook, table: WebhookTable, jobs: JobTable, urls_of: UrlsOf, on_attempt: OnAttempt
    ) -> None:
        self.endpoint = endpoint
        self._table = table
        self._jobs = jobs
        self._urls_of = urls_of
        self._on_attempt = on_attempt
        self._client = GuardedClient(allow_private=endpoint.allow_private)
        self._sending: set[int] = set()  # ids in the outbox
        self._wanted = anyio.Event()

    def wake(self) -> None:
        """There may be something to send."""
        self._wanted.set()

    async def run(self) -> None:
        name = self.endpoint.name
        await self._until_written(lambda: self._table.clamp(name, now() + timedelta(seconds=2 * LONGEST_SECONDS)))
        async with anyio.create_task_group() as group:
            while True:
                self._wanted = anyio.Event()
                try:
                    pause = await self._start_due(group)
                except sqlite3.Error as error:
                    log.warning("webhooks_unread", webhook=name, reason=str(error))
                    pause = AGAIN_SECONDS
                with anyio.move_on_after(pause):
                    await self._wanted.wait()

    async def _start_due(self, group: TaskGroup) -> float:
        """Start what is due, as far as there is room; returns the seconds until more can be."""
        name, moment = self.endpoint.name, now()  # one moment: no row may become due between the two looks
        state = (await self._table.endpoints()).get(name)
        free = AT_ONCE - len(self._sending)
        if free <= 0 or state is None or state.switched_off_at:
            return LOOK_SECONDS
        sent_meanwhile = set(self._sending)  # a row may still be read as waiting whose delivery is recorded by now
        rows = await self._table.due(name, moment, AT_ONCE + free)
        due = [one for one in rows if one.id not in sent_meanwhile | self._sending]
        for delivery in due[:free]:
            self._sending.add(delivery.id)
            group.start_soon(self._deliver, delivery)
        following = await self._table.next_due(name, moment)
        left = (following - now()).total_seconds() if following else LOOK_SECONDS
        return min(max(left, 0.05), LOOK_SECONDS)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            attempt = await self._attempt(delivery)
            await self._until_written(lambda: self._record(delivery, attempt))
        finally:
            self._sending.discard(delivery.id)
            self.wake()

    async def _attempt(self, delivery: Delivery) -> Attempt:
        try:
            job = await self._jobs.job(delivery.job_id)
            body = await body_of(delivery, job, self._urls_of)
        except (sqlite3.Error, StorageError) as error:
            log.warning("webhook_not_made", webhook=delivery.webhook, delivery=delivery.message_id, reason=str(error))
            return Attempt(as_text(now()), None, "not_made", 0)
        return await self._post(delivery.message_id, body)

    async def _post(self, message_id: str, body: bytes) -> Attempt:
        moment, began = now(), time.perf_counter()
        status, reason = None, None
        headers = headers_of(message_id, moment, body, self.endpoint.secret)
        try:
            async with self._client.send(
                "POST", self.endpoint.url, headers=headers, body=body, seconds=ATTEMPT_SECONDS
            ) as answer:
                status = answer.status
                await answer.drop(ANSWER_BYTES)
        except NotCalled as error:
            reason = None if status is not None else error.reason  # an answer that was given counts, however it ends
            log.warning("webhook_not_delivered", webhook=self.endpoint.name, delivery=message_id, reason=str(error))
        return Attempt(as_text(moment), status, reason, round((time.perf_counter() - began) * 1000))

    async def _record(self, delivery: Delivery, attempt: Attempt) -> None:
        seconds = attempt.milliseconds / 1000
        if _is_success(attempt):
            await self._table.record(delivery, attempt, "delivered")
            self._on_attempt(delivery.webhook, "delivered", seconds)
            return
        gone = attempt.status == GONE
        again = next_attempt(delivery.attempts + 1, datetime.fromisoformat(delivery.waiting_since), now())
        await self._table.record(delivery, attempt, again or "given_up", switch_off=gone)
        outcome: Outcome = "gone" if gone else "refused" if attempt.status is not None else "unreachable"
        self._on_attempt(delivery.webhook, outcome, seconds)
        if again is None:
            self._on_attempt(delivery.webhook, "given_up", 0)
        if gone:
            log.warning("webhook_switched_off", webhook=delivery.webhook, reason="it answered 410")

    async def _until_written(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write, however long the database refuses: a delivery is not sent again only because of that."""
        while True:
            try:
                return await write()
            except DatabaseUnavailable as error:
                log.error("webhook_not_recorded", webhook=self.endpoint.name, reason=str(error))
                await anyio.sleep(AGAIN_SECONDS)

    async def test(self) -> Posted:
        """Send a `webhook.test` now, which is in no table."""
        moment = as_text(now())
        body = encoded("webhook.test", moment, {"webhook": self.endpoint.name})
        attempt = await self._post(f"msg_test_{time.time_ns():x}", body)
        return Posted(attempt, _is_success(attempt))


class Webhooks:
    """The senders of all configured endpoints."""

    def __init__(self, table: WebhookTable, senders: tuple[WebhookSender, ...], feed: EventFeed) -> None:
        self.table = table
        self.senders = {one.endpoint.name: one for one in senders}
        self._feed = feed

    async def run(self) -> None:
        self._feed.listen(self.wake)
        async with anyio.create_task_group() as group:
            for sender in self.senders.values():
                group.start_soon(sender.run)

    def wake(self) -> None:
        for sender in self.senders.values():
            sender.wake()


def _is_success(attempt: Attempt) -> bool:
    return attempt.status is not None and 200 <= attempt.status < 300
