"""The minimum rate of a request body."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, Self

import anyio

from ...intake.staging import Rejected


class SlowClient(Rejected):
    """The body stopped arriving, or arrives too slowly."""


class MinimumBodyRate:
    """The limits of a body: `idle_seconds` for its next bytes, and a minimum rate over each such time of waiting.

    The rate is not taken over the whole upload: a fast start must not pay for hours of single bytes.
    Call `next` inside `watching`.
    """

    def __init__(self, idle_seconds: float, min_bytes_per_second: int) -> None:
        self._idle_seconds = idle_seconds
        self._min_rate = min_bytes_per_second
        self._waited = 0.0  # seconds of waiting in the current window
        self._received = 0
        self._scope = anyio.CancelScope()  # one for all waits: one for each takes a tenth of a large upload's time

    @contextmanager
    def watching(self) -> Iterator[Self]:
        """A scope that ends when no bytes arrive in time. Raises SlowClient."""
        with self._scope:
            yield self
        if self._scope.cancelled_caught:
            raise SlowClient(f"No data arrived for {self._idle_seconds:g} seconds.")

    async def next(self, receive: Callable[[], Any]) -> Any:
        """The next message of `receive`. Raises SlowClient; `watching` does so if none arrives."""
        began = time.monotonic()
        self._scope.deadline = anyio.current_time() + self._idle_seconds
        message = await receive()
        self._scope.deadline = inf
        self._waited += time.monotonic() - began
        self._received += len(message.get("body", b""))
        if self._waited > self._idle_seconds:
            if self._received < self._min_rate * self._waited:
                raise SlowClient(f"The upload is slower than {self._min_rate} bytes per second.")
            self._waited, self._received = 0.0, 0
        return message
