"""A Redis connection whose commands wait at most 50 ms, and not at all while Redis is known to be unavailable.

A failing command marks Redis as unavailable, and so do trials every two seconds. PING would not do for that: a Redis
that is full, or a read-only replica, answers it.
"""

import asyncio
import re
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
from .redis_errors import reason_of

log = structlog.get_logger()

TRIAL_SECONDS = 2.0  # between trials
CONNECT_SECONDS = 1.0  # for new connections and their first responses; no upload waits for them
CLOSE_SECONDS = 0.5
CONNECTIONS = 4  # with one, uploads in a busy event loop wait four times as long for each other
SLICES = 5  # of the time a response may take: a slice in which the event loop itself was busy counts once
Command = tuple[str | int, ...]


class RedisAway(Exception):
    """Redis can't be used. The message gives the reason, without the password."""


class RedisConnection:
    """Connections to one Redis. `up` and `info` (its last INFO) are read from memory. The caller counts `skipped`."""

    def __init__(self, url: str, timeout_seconds: float, trial: list[Command]) -> None:
        """`trial` are commands that show whether Redis can be used. Raises SettingsError."""
        self.up = False
        self.skipped = 0
        self.info: dict[str, Any] = {}
        self._timeout = timeout_seconds
        self._trial = (*trial, ("INFO",))
        self._away_since: float | None = None  # monotonic seconds
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._owed: list[Command] = []  # at most one for each upload that was in progress when Redis failed
        known = re.sub(r"^valkey", "redis", url)  # the same protocol, under a name that the client does not know
        hung = max(CONNECT_SECONDS, timeout_seconds)  # ends a command whose caller was cancelled
        try:  # RESP 2: an old server repeats HELLO with the password in its error
            self._redis = Redis.from_url(known, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=hung)
            self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (TypeError, ValueError, RedisError):  # their messages may repeat the password
            raise SettingsError("[redis] url (REDIS_URL) = (hidden): the redis client can't make use of it") from None
        self._password = str(self._redis.connection_pool.connection_kwargs.get("password") or "")

    async def request(self, command: Command, on_unread: Callable[[Any], None] = lambda _: None) -> Any:
        """Send a command and return the response; None if Redis is unavailable or does not respond in time.

        If the caller is cancelled, a command already sent takes effect anyway: `on_unread` gets its response.
        """
        async with self._slots:  # the time limit does not include waiting for earlier commands
            if not self.up:
                return None
            sent = self._start(self._redis.execute_command(*command))  # type: ignore[no-untyped-call]
            try:
                return await _in_time(sent, self._timeout)
            except asyncio.CancelledError:
                sent.add_done_callback(lambda task: on_unread(task.result()) if _succeeded(task) else None)
                raise
            except Exception as error:
                self._went_down(error)
                return None

    def send(self, command: Command) -> None:
        """Send a command without waiting, at most once; if Redis is unavailable, once it is back."""
        if self.up:
            self._start(self.request(command))
        else:
            self._owed.append(command)

    async def flush(self, seconds: float) -> None:
        """Wait until all sent commands are answered: at most this long, and not while Redis is unavailable."""
        with anyio.move_on_after(seconds):
            while self.up and self._under_way:
                await asyncio.wait(self._under_way)

    async def run(self) -> None:
        """Try Redis again and again, until cancelled. The first `check` is the caller's."""
        try:
            while True:
                await anyio.sleep(TRIAL_SECONDS)
                await self.check()
        finally:
            await self.close()

    async def check(self) -> None:
        """Find out whether Redis is available. If it is back, send what it is owed."""
        was_up = self.up
        try:
            self.info = await self.probe()
        except RedisAway as error:
            self._went_down(error)
            return
        if was_up and not self.up:
            return  # a command has failed since the trial began, which may have had its answers before
        if self._away_since is not None:
            away = round(time.monotonic() - self._away_since, 1)
            log.info("redis_available", away_seconds=away, uploads_not_shared=self.skipped)
        self.up, self._away_since, self.skipped = True, None, 0
        while self._owed:
            self.send(self._owed.pop())

    async def probe(self) -> dict[str, Any]:
        """Run the trial on all connections; returns Redis' INFO, {} if that is refused. Raises RedisAway."""
        try:
            # Connecting may take longer. Then it must respond as fast as uploads need it, or it would be up and down.
            for seconds in (self._timeout,) if self.up else (CONNECT_SECONDS, self._timeout):
                tries = [self._start(self._try()) for _ in range(CONNECTIONS)]
                info = (await _in_time(asyncio.gather(*tries), seconds))[0]
        except Exception as error:
            raise RedisAway(reason_of(error, self._password)) from None
        return info if isinstance(info, dict) else {}

    async def close(self) -> None:
        """End what is under way, since a trial would go on connecting, and close all connections."""
        for task in self._under_way:
            task.cancel()
        with anyio.move_on_after(CLOSE_SECONDS, shield=True), suppress(Exception):
            while self._under_way:
                await asyncio.wait(self._under_way)
            await self._redis.aclose()

    async def _try(self) -> Any:
        pipeline = self._redis.pipeline(transaction=False)
        for command in self._trial:
            pipeline.execute_command(*command)
        *answers, info = await pipeline.execute(raise_on_error=False)
        for error in (answer for answer in answers if isinstance(answer, Exception)):
            raise error
        return info

    def _start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    def _went_down(self, error: Exception) -> None:
        if self._away_since is None:
            reason, meanwhile = reason_of(error, self._password), "uploads are counted on this instance alone"
            log.warning("redis_unavailable", reason=reason, meanwhile=meanwhile)
            self._away_since = time.monotonic()
        self.up, self.info = False, {}


async def _in_time(work: "asyncio.Future[Any]", seconds: float) -> Any:
    """Wait with a time limit that excludes the time in which the event loop itself was busy. Raises TimeoutError."""
    work.add_done_callback(_succeeded)
    for _ in range(SLICES):
        await asyncio.wait({work}, timeout=seconds / SLICES)
        if work.done():
            return work.result()
    work.cancel()  # the client closes a connection whose response was not read
    raise TimeoutError(f"no answer within {seconds * 1000:g} ms")


def _succeeded(done: "asyncio.Future[Any]") -> bool:
    """Whether there is a result. Marks an error as retrieved."""
    return not done.cancelled() and done.exception() is None
