"""Uploads in progress: their number, per user and in all, and the bytes and rate-limit slots that they will take.

They are counted from the first byte, so that all uploads in progress together stay within the limits checked then.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from .staging import Rejected

User = tuple[str, str]  # org, user


class TooManyOpenUploads(Rejected):
    """The user has the maximum number of uploads in progress."""

    def __init__(self, limit: int, open_now: int) -> None:
        super().__init__(f"{open_now} uploads are open; at most {limit} may be.")
        self.limit, self.open_now = limit, open_now


class TooManyUploads(Rejected):
    """The maximum number of uploads is in progress, of all users together."""

    def __init__(self, limit: int, open_now: int) -> None:
        super().__init__(f"{open_now} uploads are on their way; at most {limit} may be.")
        self.limit, self.open_now = limit, open_now


class OpenUploads:
    """Counts open uploads: `announced_bytes` of all, and each user's reserved rate-limit slots. In memory only."""

    def __init__(self, max_per_user: int, max_in_all: int) -> None:
        self.max_per_user = max_per_user
        self.max_in_all = max_in_all
        self.announced_bytes = 0
        self._open: Counter[User] = Counter()
        self._places: Counter[User] = Counter()

    @property
    def count(self) -> int:
        return self._open.total()

    def places(self, user: User) -> int:
        """The rate-limit slots that uploads in progress have reserved."""
        return self._places[user]

    def require_place(self, user: User) -> None:
        """Raises TooManyOpenUploads."""
        if self._open[user] >= self.max_per_user:
            raise TooManyOpenUploads(self.max_per_user, self._open[user])

    def require_any_place(self) -> None:
        """Raises TooManyUploads."""
        if self.count >= self.max_in_all:
            raise TooManyUploads(self.max_in_all, self.count)

    @contextmanager
    def held(self, user: User, announced_bytes: int, *, takes_place: bool) -> Iterator["OpenUpload"]:
        """Count one upload until it ends, in whatever way."""
        one = OpenUpload(self, user, takes_place=takes_place)
        self._open[user] += 1
        self._places[user] += int(takes_place)
        self.announced_bytes += announced_bytes
        try:
            yield one
        finally:
            one.release_place()
            self.announced_bytes -= announced_bytes
            self._forget_one(self._open, user)

    def release_place(self, user: User) -> None:
        """Release a reserved slot of the rate limit."""
        self._forget_one(self._places, user)

    def _forget_one(self, counts: Counter[User], user: User) -> None:
        counts[user] -= 1
        if not counts[user]:
            del counts[user]


class OpenUpload:
    """One upload in progress, and its reserved slot of the rate limit, held until the actual slot is taken."""

    def __init__(self, uploads: OpenUploads, user: User, *, takes_place: bool) -> None:
        self._uploads = uploads
        self._user = user
        self._has_place = takes_place
        self.erasures_seen = 0  # the latest erasure of a person when it began

    def release_place(self) -> None:
        """Release the reserved slot, once: it must not count in addition to the actual one."""
        if self._has_place:
            self._has_place = False
            self._uploads.release_place(self._user)
