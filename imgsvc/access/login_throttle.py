"""Slows down guessing of the operator's token: after a few refusals an address gets slow responses (token bucket)."""

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable

import anyio

from ..lazy_dataclass import dataclass
from ..settings.hosts import parsed_address

BURST = 10  # refusals in a row before an address has to wait
EVERY_SECONDS = 6.0  # after this time one more refusal is free: a scraper with an old token stays below the limit
SLOW_SECONDS = 1.0  # the delay of each response beyond the burst
MAX_WAITING = 50
MAX_ADDRESSES = 10_000
HOUR_SECONDS = 3600.0
MAX_COUNTED = 100_000  # refusals of the last hour that are counted


@dataclass(slots=True)
class _Bucket:
    """A token bucket: the refusals that an address has left at `since` (monotonic seconds)."""

    left: float
    since: float


class LoginThrottle:
    """Counts recent refusals by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._waiting = 0
        self._refused: deque[float] = deque(maxlen=MAX_COUNTED)

    def wait(self, address: str) -> float:
        """After a refusal: seconds until the next one would not be delayed; 0 within the burst."""
        bucket = self._buckets.get(_network(address))
        if bucket is None:
            return 0
        left = self._left(bucket)
        return (1 - left) * EVERY_SECONDS if left < 0 else 0

    def refused(self, address: str) -> None:
        now, network = self._clock(), _network(address)
        bucket = self._buckets.pop(network, None)
        left = BURST if bucket is None else self._left(bucket)
        self._buckets[network] = _Bucket(max(-1, left - 1), now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        self._refused.append(now)

    async def slow_down(self) -> None:
        """Delay a refused client by SLOW_SECONDS, for at most MAX_WAITING clients at once."""
        if self._waiting < MAX_WAITING:
            self._waiting += 1
            try:
                await anyio.sleep(SLOW_SECONDS)
            finally:
                self._waiting -= 1

    def last_hour(self) -> int:
        """The number of refusals in the last hour."""
        oldest = self._clock() - HOUR_SECONDS
        while self._refused and self._refused[0] < oldest:
            self._refused.popleft()
        return len(self._refused)

    def _left(self, bucket: _Bucket) -> float:
        return min(BURST, bucket.left + (self._clock() - bucket.since) / EVERY_SECONDS)


def _network(address: str) -> str:
    """The network that is counted: an IPv6 client owns a /64, so its addresses count as one."""
    try:
        parsed = parsed_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else str(parsed)
