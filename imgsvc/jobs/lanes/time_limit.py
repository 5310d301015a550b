"""Time limits that count only the time in which this process ran.

A service that was stopped for twenty seconds (SIGSTOP, a paused virtual machine, a laptop that slept) must not find
that its workers took too long meanwhile.
"""

import asyncio
import time
from types import TracebackType
from typing import Self

import anyio

LOOK_SECONDS = 0.5
SLACK_SECONDS = 1.0  # a look that comes later than this was kept from running


class TimeLimit:
    """A context in which a body may run for `seconds`; raises TimeoutError after that.

    `paused_seconds` is the time that was not counted, since nothing of this process ran in it.
    """

    def __init__(self, seconds: float) -> None:
        self.paused_seconds = 0.0
        self._left = seconds
        self._scope = anyio.CancelScope()

    def __enter__(self) -> Self:
        self._scope.__enter__()
        self._looked = time.monotonic()
        self._plan()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._timer.cancel()
        swallowed = bool(self._scope.__exit__(kind, error, trace))
        if self._scope.cancelled_caught:
            raise TimeoutError
        return swallowed

    def _plan(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(0, min(LOOK_SECONDS, self._left)), self._look)

    def _look(self) -> None:
        moment = time.monotonic()
        passed, self._looked = moment - self._looked, moment
        counted = min(passed, LOOK_SECONDS + SLACK_SECONDS)
        self.paused_seconds += passed - counted
        self._left -= counted
        if self._left <= 0:
            self._scope.cancel()
        else:
            self._plan()
