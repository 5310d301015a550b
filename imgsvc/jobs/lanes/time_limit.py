"""Time limits that count only the time during which this process ran.

After the service was paused for twenty seconds (SIGSTOP, a paused virtual machine, a suspended laptop), it must not
conclude that its workers took too long.
"""

import asyncio
import time
from types import TracebackType
from typing import Self

import anyio

LOOK_SECONDS = 0.5
SLACK_SECONDS = 1.0  # a check that is later than this means that the process was paused


class TimeLimit:
    """A context that may run for `seconds`; raises TimeoutError after that.

    `paused_seconds` is the time that was not counted, since the process was paused.
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
