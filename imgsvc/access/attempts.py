"""Slowing down whoever tries tokens: after a few refusals an address is looked at only every few seconds."""

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

BURST = 10  # refusals in a row before an address has to wait
EVERY_SECONDS = 6.0  # then one more each time this has passed: a scraper with an old token stays below
MAX_ADDRESSES = 10_000
HOUR_SECONDS = 3600.0
MAX_COUNTED = 100_000  # refusals of the last hour that are told apart


@dataclass(slots=True)
class _Bucket:
    """Refusals that an address may still collect at `since` (monotonic seconds)."""

    left: float
    since: float


class Attempts:
    """`wait` before a secret is compared and `refused` after it was wrong, without anything awaited between them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._refused: deque[float] = deque(maxlen=MAX_COUNTED)

    def wait(self, address: str) -> float:
        """Seconds until something sent from this address is looked at again; 0: now."""
        bucket = self._buckets.get(_network(address))
        if bucket is None:
            return 0
        missing = 1 - self._left(bucket)
        return max(0, missing * EVERY_SECONDS)

    def refused(self, address: str) -> None:
        now, network = self._clock(), _network(address)
        bucket = self._buckets.pop(network, None)
        left = BURST if bucket is None else self._left(bucket)
        self._buckets[network] = _Bucket(left - 1, now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        self._refused.append(now)

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
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed.version == 6 else address
