"""A circuit breaker: after consecutive failures no calls are made for a while, then one call probes the server.

closed -> open after `threshold` consecutive failures -> half_open after `timeout_seconds`, which lets one call through
at a time, the probe -> closed if it succeeds, open again if it fails.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

State = Literal["closed", "open", "half_open"]


class BreakerOpen(Exception):
    """The circuit breaker is open: the call must not be made."""


class Breaker:
    """For the tasks of one event loop: no method awaits, so each one is atomic for the other tasks."""

    def __init__(self, threshold: int, timeout_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.threshold = threshold
        self.timeout_seconds = timeout_seconds
        self.failures = 0  # consecutive failures, including those of probes
        self.opened_at: datetime | None = None  # when it last opened, by the wall clock; None while closed
        self._clock = clock
        self._opened: float | None = None
        self._probing = False
        self._epoch = 0  # raised by every opening and closing: results of calls from an earlier epoch are ignored

    @property
    def state(self) -> State:
        if self._opened is None:
            return "closed"
        return "open" if self.remaining_seconds > 0 else "half_open"

    @property
    def remaining_seconds(self) -> float:
        """Seconds until a probe is allowed; 0 if closed or half open."""
        return 0.0 if self._opened is None else max(0.0, self._opened + self.timeout_seconds - self._clock())

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Wraps one call. An Exception counts as a failure; a cancellation does not count. Raises BreakerOpen."""
        if self.state == "open" or self._probing:
            raise BreakerOpen
        self._probing = self.state == "half_open"
        epoch = self._epoch
        try:
            yield
        except Exception:
            if epoch == self._epoch:
                self._failed()
            raise
        except BaseException:
            if epoch == self._epoch:
                self._probing = False  # the next call may be the probe
            raise
        if epoch == self._epoch:
            self._succeeded()

    def _failed(self) -> None:
        self.failures += 1
        if self.failures >= self.threshold:  # always true after a probe
            self._turn(self._clock(), datetime.now(UTC))

    def _succeeded(self) -> None:
        self.failures = 0
        if self._probing:
            self._turn(None, None)

    def _turn(self, opened: float | None, opened_at: datetime | None) -> None:
        self._opened, self.opened_at = opened, opened_at
        self._probing = False
        self._epoch += 1
