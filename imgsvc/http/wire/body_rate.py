"""The minimum rate of a request body."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import anyio

from ...intake.staging import Rejected


class SlowClient(Rejected):
    """The body stopped arriving, or arrives too slowly."""


class MinimumBodyRate:
    """The limits of a body: `idle_seconds` for its next bytes, and a minimum rate over each such time of waiting.

    The rate is not taken over the whole upload: a fast start must not pay for hours of single bytes.
    """

    def __init__(self, idle_seconds: float, min_bytes_per_second: int) -> None:
        self._idle_seconds = idle_seconds
        self._min_rate = min_bytes_per_second
        self._waited = 0.0  # seconds of waiting in the current window
        self._received = 0
        self._scope: anyio.CancelScope | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Use one scope for all waits of a body: one for each takes a tenth of a large upload's time in the event loop.

        Raises SlowClient.
        """
        with anyio.CancelScope() as self._scope:
            yield
        if self._scope.cancelled_caught:
            raise self._stalled()

    async def next(self, receive: Callable[[], Any]) -> Any:
        """The next message of `receive`. Raises SlowClient."""
        began = time.monotonic()
        message = await self._in_time(receive)
        self._waited += time.monotonic() - began
        self._received += len(message.get("body", b""))
        if self._waited > self._idle_seconds:
            if self._received < self._min_rate * self._waited:
                raise SlowClient(f"The upload is slower than {self._min_rate} bytes per second.")
            self._waited, self._received = 0.0, 0
        return message

    async def _in_time(self, receive: Callable[[], Any]) -> Any:
        if self._scope is not None:
            self._scope.deadline = anyio.current_time() + self._idle_seconds
            message = await receive()
            self._scope.deadline = inf
            return message
        try:
            with anyio.fail_after(self._idle_seconds):
                return await receive()
        except TimeoutError:
            raise self._stalled() from None

    def _stalled(self) -> SlowClient:
        return SlowClient(f"No data arrived for {self._idle_seconds:g} seconds.")
