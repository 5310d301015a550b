"""A limit of the rate at which a test's lanes or worker finish."""

import asyncio
import time


class Pace:
    """Turns that begin at most `rate` times a second."""

    def __init__(self, rate: float) -> None:
        self._every = 1 / rate
        self._last = 0.0

    async def turn(self) -> None:
        now = time.monotonic()
        self._last = max(now, self._last + self._every)
        await asyncio.sleep(self._last - now)
