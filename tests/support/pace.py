"""So many a second."""

import asyncio
import time


class Pace:
    """Gives turns, one after the other: as many a second, if as many are waited for."""

    def __init__(self, rate: float) -> None:
        self._every = 1 / rate
        self._last = 0.0

    async def turn(self) -> None:
        now = time.monotonic()
        self._last = max(now, self._last + self._every)
        await asyncio.sleep(self._last - now)
