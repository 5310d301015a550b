"""Uploads by address: how many at once, and how many attempts."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from cachetools import TTLCache

from .staging import Rejected

User = tuple[str, str]  # org, user

MAX_PER_USER, MAX_FETCHES = 2, 8  # at once
MAX_ATTEMPTS, WINDOW_SECONDS = 100, 3600.0  # of one user, failed ones too
MAX_USERS = 100_000  # whose attempts are remembered


class TooManyFetches(Rejected):
    """So many are on their way, of this user or of all."""

    def __init__(self, limit: int, open_now: int) -> None:
        super().__init__(f"{open_now} fetches are on their way; at most {limit} may be.")
        self.limit, self.open_now = limit, open_now


class FetchesUsedUp(Rejected):
    """The user has made all attempts of this window."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Rate limit exceeded. Maximum {MAX_ATTEMPTS} fetches per hour.")
        self.retry_after = retry_after


class FetchFailed(Exception):
    """There was no image at the address. The reason is for the log only: to a client all failures look the same."""


class Fetches:
    """Counted in memory: a restart starts over."""

    def __init__(self) -> None:
        self._open: Counter[User] = Counter()
        self._attempts: TTLCache[User, list[float]] = TTLCache(MAX_USERS, WINDOW_SECONDS)

    @property
    def count(self) -> int:
        """How many are under way."""
        return self._open.total()

    @contextmanager
    def attempt(self, user: User) -> Iterator[None]:
        """Count an attempt and hold a place. Raises FetchesUsedUp or TooManyFetches, which count nothing."""
        if self._open[user] >= MAX_PER_USER:
            raise TooManyFetches(MAX_PER_USER, self._open[user])
        if self.count >= MAX_FETCHES:
            raise TooManyFetches(MAX_FETCHES, self.count)
        began, used = self._attempts.get(user, (time.monotonic(), 0.0))
        if used >= MAX_ATTEMPTS:
            raise FetchesUsedUp(max(1, math.ceil(began + WINDOW_SECONDS - time.monotonic())))
        if user in self._attempts:
            self._attempts[user][1] += 1  # in place: setting it would start the window over
        else:
            self._attempts[user] = [began, 1]
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]
