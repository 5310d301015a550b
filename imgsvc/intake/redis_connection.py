"""Redis for commands that wait for it 50 ms and not longer: while it is known to be away, they don't wait at all.

A command that fails shows that it is away, and so does a look every few seconds. PING would not do for that: a Redis
that is full, or a replica, answers it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..settings import SettingsError

log = structlog.get_logger()

CONNECT_SECONDS = 1.0  # for new connections and their first answers; no upload waits for them
CLOSE_SECONDS = 0.5  # to take leave
LOOK_SECONDS = 5.0  # between two looks at a Redis that answers
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds between two looks while it does not
STEADY_SECONDS = 10.0  # a Redis that answered for less is looked at more seldom each time
CONNECTIONS = 4
SLICES = 5  # of the time an answer may take: one that the loop itself was busy for counts once
TURNS = 20  # of the loop: enough to read what has come in
Command = tuple[str | int, ...]
Unwanted = Callable[[Any], None]


class RedisAway(Exception):
    """It does not do what it is needed for; the message says why, without the password."""


class RedisConnection:
    """`up` and `info` (the server's own, as last seen) cost nothing to read. `skipped` is counted by the caller."""

    def __init__(self, url: str, timeout_seconds: float, tries: list[Command]) -> None:
        """`tries` are commands that show whether Redis does what it is needed for. Raises SettingsError."""
        self.up = False
        self.skipped = 0
        self.attempts = 0  # to find it up
        self.info: dict[str, Any] = {}
        self.tried = anyio.Event()  # set once the first attempt has ended, either way
        self._timeout = timeout_seconds
        self._tries = tries
        self._away_since: float | None = None
        self._ended = anyio.Event()  # set when Redis goes; there is a new one each time it comes back
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._owed: list[Command] = []  # no more than there were uploads under way when Redis went
        limits: dict[str, Any] = {
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": max(CONNECT_SECONDS, timeout_seconds),
        }
        try:  # RESP 2: an old server repeats HELLO with the password in its error
            self._redis = Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0), **limits)
            self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (TypeError, ValueError, RedisError):  # their words may repeat the password
            raise SettingsError("[redis] url (REDIS_URL) = (hidden): the redis client can't make use of it") from None
        self._password = str(self._redis.connection_pool.connection_kwargs.get("password") or "")

    async def ask(self, command: Command, unwanted: Unwanted) -> Any:
        """The answer; None when Redis is away, or does not answer in time.

        When the caller is cancelled, a command on its way takes effect all the same: `unwanted` gets its answer.
        """
        if not self.up:
            return None
        async with self._slots:  # so that its time is not spent in waiting for the commands before it
            if not self.up:
                return None
            ended = self._ended
            sent = self._start(self._redis.execute_command(*command))  # type: ignore[no-untyped-call]
            try:
                return await _in_time(sent, self._timeout)
            except asyncio.CancelledError:
                sent.add_done_callback(lambda task: unwanted(task.result()) if _succeeded(task) else None)
                raise
            except Exception as error:
                if ended is self._ended:  # else Redis went and came back meanwhile
                    self._went_down(error)
                return None

    def tell(self, command: Command) -> None:
        """Send it without waiting, once at the most; if Redis is away, when it is back."""
        if self.up:
            self._start(self.ask(command, lambda _: None))
        else:
            self._owed.append(command)

    async def drain(self, seconds: float) -> None:
        """Until all that is under way was answered; not longer than this, and not while Redis is away."""
        with anyio.move_on_after(seconds):
            while self.up and self._under_way:
                await asyncio.wait(self._under_way)

    async def run(self) -> None:
        """Find out when Redis goes and when it comes back, until cancelled."""
        delay = FIRST_DELAY
        try:
            while True:
                began = time.monotonic()
                self.attempts += 1
                await self._until_it_goes()
                delay = FIRST_DELAY if time.monotonic() - began > STEADY_SECONDS else delay
                await anyio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY)
        finally:
            await self.close()

    async def _until_it_goes(self) -> None:
        try:
            await self.look()
            self._came_up()
            while not self._ended.is_set():
                with anyio.move_on_after(LOOK_SECONDS):
                    await self._ended.wait()
                    return
                await self.look(self._timeout)
        except Exception as error:  # whatever it is, uploads go on without Redis
            self._went_down(error)

    async def look(self, seconds: float = CONNECT_SECONDS) -> dict[str, Any]:
        """What Redis says of itself, which may be nothing, after the tries. Raises RedisAway."""
        tried = asyncio.gather(*(self._try() for _ in range(CONNECTIONS)))  # opens as many, so that no upload has to
        try:
            info = (await _in_time(tried, seconds))[0]
        except Exception as error:
            raise RedisAway(self._reason(error)) from None
        self.info = info if isinstance(info, dict) else {}
        return self.info

    async def close(self) -> None:
        with anyio.move_on_after(CLOSE_SECONDS, shield=True), suppress(Exception):
            await self._redis.aclose()

    async def _try(self) -> Any:
        pipeline = self._redis.pipeline(transaction=False)
        for command in (*self._tries, ("INFO",)):
            pipeline.execute_command(*command)
        *answers, info = await pipeline.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return info

    def _start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    def _came_up(self) -> None:
        if self._away_since is not None:
            away = round(time.monotonic() - self._away_since, 1)
            log.info("redis_back", away_seconds=away, uploads_not_shared=self.skipped)
        self._away_since, self._ended, self.up = None, anyio.Event(), True
        self.tried.set()
        owed, self._owed = self._owed, []
        for command in owed:
            self.tell(command)

    def _went_down(self, error: Exception) -> None:
        self.up, self.info = False, {}
        if self._away_since is None:
            self._away_since, self.skipped = time.monotonic(), 0
            reason, meanwhile = self._reason(error), "uploads are counted on this instance alone"
            log.warning("redis_away", reason=reason, meanwhile=meanwhile)
        self._ended.set()
        self.tried.set()

    def _reason(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        return text.replace(self._password, "(hidden)") if self._password else text


async def _in_time(work: "asyncio.Future[Any]", seconds: float) -> Any:
    """Raises TimeoutError. Redis is not to blame for the time in which the loop itself was busy."""
    work.add_done_callback(_succeeded)
    for pause in (*[seconds / SLICES] * SLICES, *[0] * TURNS):
        await asyncio.wait({work}, timeout=pause)
        if work.done():
            return work.result()
    work.cancel()  # the client closes a connection whose answer was not read
    raise TimeoutError(f"no answer within {seconds * 1000:g} ms")


def _succeeded(done: "asyncio.Future[Any]") -> bool:
    """Whether there is a result. An error counts as seen."""
    return not done.cancelled() and done.exception() is None
