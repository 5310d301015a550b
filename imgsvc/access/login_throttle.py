"""Slowing down whoever tries tokens: after a few refusals an address gets its answers late, and told to wait."""

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio

BURST = 10  # refusals in a row before an address has to wait
EVERY_SECONDS = 6.0  # then one more each time this has passed: a scraper with an old token stays below
SLOW_SECONDS = 1.0  # that each of the answers beyond the burst takes
MAX_WAITING = 50
MAX_ADDRESSES = 10_000
HOUR_SECONDS = 3600.0
MAX_COUNTED = 100_000  # refusals of the last hour that are told apart


@dataclass(slots=True)
class _Bucket:
    """Refusals that an address may still collect at `since` (monotonic seconds)."""

    left: float
    since: float


class LoginThrottle:
    """Which address was refused how often of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._waiting = 0
        self._refused: deque[float] = deque(maxlen=MAX_COUNTED)

    def wait(self, address: str) -> float:
        """After a refusal: seconds until the next would be answered without delay; 0 while the burst lasts."""
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
        """Keep who guesses waiting, as many at a time as cost nothing."""
        if self._waiting < MAX_WAITING:
            self._waiting += 1
            try:
                await anyio.sleep(SLOW_SECONDS)
            finally:
                self._waiting -= 1

    def last_hour(self) -> int:
        """How many were refused."""
        oldest = self._clock() - HOUR_SECONDS
        while self._refused and self._refused[0] < oldest:
            self._refused.popleft()
        return len(self._refused)

    def _left(self, bucket: _Bucket) -> float:
        return min(BURST, bucket.left + (self._clock() - bucket.since) / EVERY_SECONDS)


def _network(address: str) -> str:
    """An IPv6 client owns a /64: its addresses there count as one."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)  # how a socket for both families reports an IPv4 client
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
