"""A limit of the rate at which a test's lanes or worker finish."""

import asyncio
import time

LATE = 10  # turns that are made up for at most


class Pace:
    """Turns that begin `rate` times a second on average, and never closer to each other than half of that distance.

    A worker of lowest priority waits for a processor now and then, as no machine of its own would: it makes up for that
    evenly, and not with all turns at once that were due meanwhile.
    """

    def __init__(self, rate: float) -> None:
        self._every = 1 / rate
        self._due = self._began = 0.0
        self._lock = asyncio.Lock()

    async def turn(self) -> None:
        async with self._lock:
            now = time.monotonic()
            self._due = max(self._due + self._every, now - LATE * self._every)
            await asyncio.sleep(max(self._due, self._began + self._every / 2) - now)
            self._began = time.monotonic()
