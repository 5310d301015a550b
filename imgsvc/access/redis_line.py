"""One connection to Redis that all commands share: what waits is sent together, and nobody waits long for an answer.

A line that failed is known to be down: until a background try finds Redis well again, asking costs nothing.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..settings import SettingsError

log = structlog.get_logger()

CONNECT_SECONDS = 1.0  # for a new connection and its first answers; no upload waits for it
LOOK_SECONDS = 5.0  # between two looks at a Redis that answers
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds between two tries while it does not
STEADY_SECONDS = 10.0  # a line that was up for less is tried again more slowly each time
MAX_BATCH = 100
MAX_KEPT = 10_000  # commands that wait for Redis to come back
SLICES = 5  # of the time an answer may take: one that the loop itself was busy for counts once
TURNS = 20  # of the loop: enough to read what has come in
Command = tuple[str | int, ...]
Unwanted = Callable[[Any], None]


class RedisAway(Exception):
    """It does not do what it is needed for; the message says why, without the password."""


@dataclass(slots=True, eq=False)
class _Asked:
    command: Command
    wanted: bool = True  # False: nobody waits for the answer
    unwanted: Unwanted | None = None  # gets an answer that nobody waits for any more
    done: anyio.Event = field(default_factory=anyio.Event)
    answer: Any = None

    def end(self, answer: Any) -> None:
        self.answer = answer
        self.done.set()
        if self.unwanted is not None and answer is not None:
            self.unwanted(answer)


class RedisLine:
    """`up` and `info` (the server's own, as last seen) cost nothing to read. `skipped` is counted by whoever asks."""

    def __init__(self, url: str, timeout_seconds: float, tries: list[Command]) -> None:
        """`tries` are commands that show whether Redis does what it is needed for. Raises SettingsError."""
        self.up = False
        self.skipped = 0
        self.attempts = 0  # to connect
        self.info: dict[str, Any] = {}
        self.tried = anyio.Event()  # set once the first try to connect has ended, either way
        self._url = url
        self._timeout = timeout_seconds
        self._tries = tries
        self._queue: deque[_Asked] = deque()
        self._sent: list[_Asked] = []
        self._wake = anyio.Event()
        self._idle = anyio.Event()
        self._away_since: float | None = None
        try:
            pool = self._client().connection_pool
            pool.make_connection()  # type: ignore[no-untyped-call]
        except (TypeError, ValueError, RedisError):  # their words may repeat the password
            raise SettingsError("[redis] url (REDIS_URL) = (hidden): the redis client can't make use of it") from None
        self._password = str(pool.connection_kwargs.get("password") or "")

    async def ask(self, command: Command, unwanted: Unwanted) -> Any:
        """The answer; None when Redis is away, or does not answer in time.

        When the caller is cancelled, a command on its way takes effect all the same: `unwanted` gets its answer.
        """
        if not self.up:
            return None
        asked = self._put(_Asked(command))
        try:
            await asked.done.wait()
        except BaseException:
            if asked in self._queue:
                self._queue.remove(asked)
            elif asked.answer is not None:
                unwanted(asked.answer)
            else:
                asked.unwanted = unwanted
            raise
        return asked.answer

    def tell(self, command: Command) -> None:
        """Send it without waiting, after everything before it, once at the most; if Redis is away, when it is back."""
        if len(self._queue) < MAX_KEPT:
            self._put(_Asked(command, wanted=False))

    def _put(self, asked: _Asked) -> _Asked:
        self._queue.append(asked)
        self._wake.set()
        return asked

    async def drain(self, seconds: float) -> None:
        """Until all that waits was sent and answered; not longer than this, and not while Redis is away."""
        with anyio.move_on_after(seconds):
            while self.up and (self._queue or self._sent):
                self._idle = anyio.Event()
                await self._idle.wait()

    async def run(self) -> None:
        delay = FIRST_DELAY
        while True:
            began = time.monotonic()
            self.attempts += 1
            client = self._client()
            try:
                await self._in_time(self._look(client), CONNECT_SECONDS)
                self._came_up()
                await self._serve(client)
            except Exception as error:  # whatever it is, uploads go on without Redis
                self._went_down(error)
            finally:
                with anyio.move_on_after(CONNECT_SECONDS, shield=True), suppress(Exception):
                    await client.aclose()
            delay = FIRST_DELAY if time.monotonic() - began > STEADY_SECONDS else delay
            await anyio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    async def look(self) -> dict[str, Any]:
        """What Redis says of itself, over a connection of its own, after the tries. Raises RedisAway."""
        client = self._client()
        try:
            await self._in_time(self._look(client), CONNECT_SECONDS)
        except Exception as error:
            raise RedisAway(self._reason(error)) from None
        finally:
            with anyio.move_on_after(CONNECT_SECONDS, shield=True), suppress(Exception):
                await client.aclose()
        return self.info

    def _client(self) -> "Redis":
        """Never tries again by itself. RESP 2: an old server repeats HELLO with the password in its error."""
        return Redis.from_url(
            self._url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=CONNECT_SECONDS,
        )

    async def _serve(self, client: "Redis") -> None:
        """Send what waits, all of it at once, and look now and then. Ends only by raising."""
        next_look = time.monotonic() + LOOK_SECONDS
        while True:
            with anyio.move_on_after(next_look - time.monotonic()):
                await self._wake.wait()
            if time.monotonic() >= next_look:
                await self._in_time(self._look(client), self._timeout)
                next_look = time.monotonic() + LOOK_SECONDS
            self._sent = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]
            if self._sent:
                await self._send(client, self._sent)
                self._sent = []
            if not self._queue:
                self._wake = anyio.Event()
                self._idle.set()

    async def _send(self, client: "Redis", batch: list[_Asked]) -> None:
        answers = await self._in_time(_together(client, [asked.command for asked in batch]), self._timeout)
        for asked, answer in zip(batch, answers, strict=True):
            if not isinstance(answer, Exception):
                asked.end(answer)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer

    async def _look(self, client: "Redis") -> None:
        """Raises unless Redis does what it is needed for. That it tells nothing about itself is no failure."""
        *answers, info = await _together(client, [*self._tries, ("INFO",)])
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        self.info = info if isinstance(info, dict) else {}

    async def _in_time(self, work: Awaitable[Any], seconds: float) -> Any:
        """Raises TimeoutError. Redis is not to blame for the time in which the loop itself was busy."""
        task = asyncio.ensure_future(work)
        task.add_done_callback(_seen)
        try:
            for pause in (*[seconds / SLICES] * SLICES, *[0] * TURNS):
                await asyncio.wait({task}, timeout=pause)
                if task.done():
                    return task.result()
            raise TimeoutError(f"no answer within {seconds * 1000:g} ms")
        finally:
            task.cancel()  # the client closes a connection whose answer was not read

    def _came_up(self) -> None:
        if self._away_since is not None:
            away = round(time.monotonic() - self._away_since, 1)
            log.info("redis_back", away_seconds=away, uploads_not_shared=self.skipped)
        self._away_since = None
        self.up = True
        self.tried.set()

    def _went_down(self, error: Exception) -> None:
        self.up = False
        self.info = {}
        if self._away_since is None:
            self._away_since, self.skipped = time.monotonic(), 0
            log.warning(
                "redis_away", reason=self._reason(error), meanwhile="uploads are counted on this instance alone"
            )
        unanswered, self._sent = self._sent + [asked for asked in self._queue if asked.wanted], []
        self._queue = deque(asked for asked in self._queue if not asked.wanted)
        for asked in unanswered:
            if not asked.done.is_set():
                asked.end(None)
        self._idle.set()
        self.tried.set()

    def _reason(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        return text.replace(self._password, "(hidden)") if self._password else text


def _seen(task: "asyncio.Future[Any]") -> None:
    """Nobody waits any more for how a cancelled one ended."""
    if not task.cancelled():
        task.exception()


async def _together(client: "Redis", commands: list[Command]) -> list[Any]:
    """Their answers, of which some may be errors."""
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    answers: list[Any] = await pipeline.execute(raise_on_error=False)
    return answers
