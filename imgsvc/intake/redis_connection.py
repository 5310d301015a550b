"""A Redis connection whose commands wait at most 50 ms, and not at all while Redis is known to be unavailable.

A failing command marks Redis as unavailable, and so do trials every few seconds. PING would not do for that: a Redis
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
from redis.exceptions import AskError, ClusterCrossSlotError, ClusterDownError, NoPermissionError, RedisError

from ..settings import SettingsError

log = structlog.get_logger()

CONNECT_SECONDS = 1.0  # for new connections and their first responses; no upload waits for them
CLOSE_SECONDS = 0.5
LOOK_SECONDS = 5.0  # between the trials of a Redis that answers
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds between the trials of one that does not
STEADY_SECONDS = 10.0  # if Redis was up for less than this, the delay before the next trial grows
CONNECTIONS = 4  # with one, uploads in a busy event loop wait four times as long for each other
SLICES = 5  # of the time an answer may take: a slice in which the event loop itself was busy counts once
TURNS = 20  # of the event loop: enough to read what has arrived
CLUSTER = (AskError, ClusterDownError, ClusterCrossSlotError)  # MOVED is an AskError too
Command = tuple[str | int, ...]


class RedisAway(Exception):
    """Redis can't be used. The message gives the reason, without the password."""


class RedisConnection:
    """Connections to one Redis. `up` and `info` (its last INFO) are read from memory. The caller counts `skipped`."""

    def __init__(self, url: str, timeout_seconds: float, trials: list[Command]) -> None:
        """`trials` are commands that show whether Redis can be used. Raises SettingsError."""
        self.up = False
        self.skipped = 0
        self.attempts = 0  # attempts to connect
        self.tried = anyio.Event()  # set once the first attempt has ended, either way
        self.info: dict[str, Any] = {}
        self._timeout = timeout_seconds
        self._trials = (*trials, ("INFO",))
        self._changed = 0.0  # when `up` last changed, in monotonic seconds; 0: never
        self._failed = anyio.Event()  # replaced each time Redis comes back
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._owed: list[Command] = []  # at most one for each upload that was in progress when Redis failed
        limits = {"socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": max(CONNECT_SECONDS, timeout_seconds)}
        try:  # RESP 2: an old server repeats HELLO with the password in its error
            known = re.sub(r"^valkey", "redis", url)  # the same protocol, under a name that the client does not know
            self._redis = Redis.from_url(known, protocol=2, retry=Retry(NoBackoff(), 0), **limits)  # type: ignore[arg-type]
            self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (TypeError, ValueError, RedisError):  # their messages may repeat the password
            raise SettingsError("[redis] url (REDIS_URL) = (hidden): the redis client can't make use of it") from None
        self._password = str(self._redis.connection_pool.connection_kwargs.get("password") or "")

    async def request(self, command: Command, on_unread: Callable[[Any], None]) -> Any:
        """Send a command and return the response; None if Redis is unavailable or does not respond in time.

        If the caller is cancelled, a command already sent takes effect anyway: `on_unread` gets its response.
        """
        if not self.up:
            return None
        async with self._slots:  # the time limit does not include waiting for earlier commands
            if not self.up:
                return None
            failed = self._failed
            sent = self._start(self._redis.execute_command(*command))  # type: ignore[no-untyped-call]
            try:
                return await _in_time(sent, self._timeout)
            except asyncio.CancelledError:
                sent.add_done_callback(lambda task: on_unread(task.result()) if _succeeded(task) else None)
                raise
            except Exception as error:
                if failed is self._failed:  # else Redis failed and came back in between
                    self._went_down(error)
                return None

    def send(self, command: Command) -> None:
        """Send a command without waiting, at most once; if Redis is unavailable, once it is back."""
        if self.up:
            self._start(self.request(command, lambda _: None))
        else:
            self._owed.append(command)

    async def flush(self, seconds: float) -> None:
        """Wait until all sent commands are answered: at most this long, and not while Redis is unavailable."""
        with anyio.move_on_after(seconds):
            while self.up and self._under_way:
                await asyncio.wait(self._under_way)

    async def run(self) -> None:
        """Watch whether Redis is available, until cancelled."""
        delay = FIRST_DELAY
        try:
            while True:
                self.attempts += not self.up
                try:
                    await self.look(self._timeout if self.up else CONNECT_SECONDS)
                    self._came_up()
                except RedisAway as error:
                    self._went_down(error)
                self.tried.set()
                if self.up:
                    with anyio.move_on_after(LOOK_SECONDS):
                        await self._failed.wait()
                if not self.up:
                    await anyio.sleep(delay)
                    delay = min(2 * delay, LONGEST_DELAY)
                elif time.monotonic() - self._changed > STEADY_SECONDS:
                    delay = FIRST_DELAY
        finally:
            await self.close()

    async def look(self, seconds: float = CONNECT_SECONDS) -> dict[str, Any]:
        """Run the trials; returns Redis' INFO, {} if that is refused. Raises RedisAway."""
        tried = asyncio.gather(*(self._try() for _ in range(CONNECTIONS)))  # opens all connections now
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
        for command in self._trials:
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

    def _came_up(self) -> None:
        if self.up:
            return
        if self._changed:
            away = round(time.monotonic() - self._changed, 1)
            log.info("redis_available", away_seconds=away, uploads_not_shared=self.skipped)
        self.up, self._changed, self._failed = True, time.monotonic(), anyio.Event()
        owed, self._owed = self._owed, []
        for command in owed:
            self.send(command)

    def _went_down(self, error: Exception) -> None:
        if self.up or not self._changed:
            reason, meanwhile = self._reason(error), "uploads are counted on this instance alone"
            log.warning("redis_unavailable", reason=reason, meanwhile=meanwhile)
            self._changed, self.skipped = time.monotonic(), 0
        self.up, self.info = False, {}
        self._failed.set()

    def _reason(self, error: Exception) -> str:
        text = _plain(error) or str(error) or type(error).__name__
        return text.replace(self._password, "(hidden)") if self._password else text


def _plain(error: Exception) -> str:
    """One line for servers that are set up in a way that this service can't use; empty for anything else."""
    text = str(error)
    if isinstance(error, CLUSTER):
        return "it is a Redis Cluster, which is not supported: name a single server in REDIS_URL"
    if isinstance(error, NoPermissionError):
        needed = "allow its user EVAL, TIME, HMGET, HSET, HINCRBY, PEXPIREAT and DEL on the keys of [redis] prefix"
        return f"{text[:200]}: {needed}"
    if re.match(r"unknown command .?eval\b|ERR unknown command .?eval\b", text, re.IGNORECASE):
        return "it knows no EVAL (a Sentinel?): name the Redis server itself in REDIS_URL"
    return ""


async def _in_time(work: "asyncio.Future[Any]", seconds: float) -> Any:
    """Wait with a time limit that excludes the time in which the event loop itself was busy. Raises TimeoutError."""
    work.add_done_callback(_succeeded)
    for pause in (*[seconds / SLICES] * SLICES, *[0] * TURNS):
        await asyncio.wait({work}, timeout=pause)
        if work.done():
            return work.result()
    work.cancel()  # the client closes a connection whose response was not read
    raise TimeoutError(f"no answer within {seconds * 1000:g} ms")


def _succeeded(done: "asyncio.Future[Any]") -> bool:
    """Whether there is a result. Marks an error as retrieved."""
    return not done.cancelled() and done.exception() is None
