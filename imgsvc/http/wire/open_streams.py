"""The number of open event streams: each holds a connection for as long as its jobs take."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .problems import overloaded

MAX_PER_ADDRESS = 4  # of one client: browsers open 6 connections to a host by HTTP/1.1
MAX_STREAMS = 500


class OpenStreams:
    """Counted in memory only, by the client's address."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self._open.total()

    @contextmanager
    def place(self, address: str) -> Iterator[None]:
        """Hold a place. Raises Problem (503)."""
        if self._open[address] >= MAX_PER_ADDRESS:
            detail = f"This address has {self._open[address]} event streams open; at most {MAX_PER_ADDRESS} may be."
            raise overloaded(detail, limit=MAX_PER_ADDRESS, measured=self._open[address])
        if self.count >= MAX_STREAMS:
            detail = f"{self.count} event streams are open; at most {MAX_STREAMS} may be."
            raise overloaded(detail, limit=MAX_STREAMS, measured=self.count)
        self._open[address] += 1
        try:
            yield
        finally:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]
