"""The minimum rate of a request body."""

import time
from collections.abc import Callable
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

    async def next(self, receive: Callable[[], Any]) -> Any:
        """The next message of `receive`. Raises SlowClient."""
        began = time.monotonic()
        try:
            with anyio.fail_after(self._idle_seconds):
                message = await receive()
        except TimeoutError:
            raise SlowClient(f"No data arrived for {self._idle_seconds:g} seconds.") from None
        self._waited += time.monotonic() - began
        self._received += len(message.get("body", b""))
        if self._waited > self._idle_seconds:
            if self._received < self._min_rate * self._waited:
                raise SlowClient(f"The upload is slower than {self._min_rate} bytes per second.")
            self._waited, self._received = 0.0, 0
        return message
