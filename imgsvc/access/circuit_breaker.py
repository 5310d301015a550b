"""A circuit breaker: after failures in a row nobody is asked for a while, then one call tries whether it works again.

closed -> open after `threshold` consecutive failures -> half_open after `timeout_seconds`, for exactly one call at a
time, the probe -> closed when it succeeds, open again when it fails.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

State = Literal["closed", "open", "half_open"]


class BreakerOpen(Exception):
    """The call may not be made now."""


class Breaker:
    """For the tasks of one event loop: no method awaits, so each is one step to all of them."""

    def __init__(self, threshold: int, timeout_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.threshold = threshold
        self.timeout_seconds = timeout_seconds
        self.failures = 0  # in a row, those of probes included
        self.opened_at: datetime | None = None  # the last time, for people; None while closed
        self._clock = clock
        self._opened: float | None = None
        self._probing = False
        self._epoch = 0  # raised by every opening and closing: what began in an earlier one has no say any more

    @property
    def state(self) -> State:
        if self._opened is None:
            return "closed"
        return "open" if self.remaining_seconds > 0 else "half_open"

    @property
    def remaining_seconds(self) -> float:
        """Until a probe may be made; 0 when closed or half open."""
        return 0.0 if self._opened is None else max(0.0, self._opened + self.timeout_seconds - self._clock())

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Around one call: an Exception is its failure; a cancelled one says nothing. Raises BreakerOpen."""
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
                self._probing = False  # the next one takes the place
            raise
        if epoch == self._epoch:
            self._succeeded()

    def _failed(self) -> None:
        self.failures += 1
        if self.failures >= self.threshold:  # always so after a probe
            self._turn(self._clock(), datetime.now(UTC))

    def _succeeded(self) -> None:
        self.failures = 0
        if self._probing:
            self._turn(None, None)

    def _turn(self, opened: float | None, opened_at: datetime | None) -> None:
        self._opened, self.opened_at = opened, opened_at
        self._probing = False
        self._epoch += 1
