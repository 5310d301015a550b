"""How slow this machine is beside a quiet one: the time limits of tests are stretched by it."""

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

QUIET_SECONDS = 0.005  # for `_work`, with a processor to itself
PATIENCE = 4  # what never comes is not waited for much longer on a slow machine
_slowest = 1.0


def seconds(limit: float) -> float:
    """This limit on a quiet machine; more by what the machine has been slower at any look so far."""
    global _slowest
    _slowest = max(_slowest, _work() / QUIET_SECONDS, _queued())
    return limit * _slowest


def is_over(began: float, limit: float) -> bool:
    """Whether so many seconds of a quiet machine have gone by since `began` (time.monotonic), at most PATIENCE-fold.

    The machine is only looked at once `limit` has gone by here.
    """
    spent = time.monotonic() - began
    return spent >= limit and spent >= min(seconds(limit), PATIENCE * limit)


@contextmanager
def within(limit: float) -> Iterator[None]:
    """Raises TimeoutError after so many seconds of a quiet machine, at most PATIENCE-fold.

    The machine is only looked at shortly before `limit` has gone by here.
    """
    loop = asyncio.get_running_loop()
    with anyio.fail_after(limit) as scope:
        began = scope.deadline - limit

        def look() -> None:
            scope.deadline = began + min(seconds(limit), PATIENCE * limit)

        looking = loop.call_later(0.9 * limit, look)
        try:
            yield
        finally:
            looking.cancel()


def _queued() -> float:
    """Processes for each processor, of late: work that fits into one's turn does not show how many wait for theirs."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _work() -> float:
    """Seconds of wall time for work that is always the same."""
    began, digest = time.perf_counter(), b""
    for number in range(8_000):
        digest = hashlib.sha256(digest + number.to_bytes(2)).digest()
    return time.perf_counter() - began
