"""Claims of jobs that have a twin, and so need no lane."""

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .transactions import Claimed


class TwinClaims:
    """Whether such jobs may wait, and whether the queue waits for one.

    While it does, the transaction that accepts an upload claims a job with a twin too, which is then handed to the
    queue: a transaction less, and no wait for its sync.
    """

    def __init__(self) -> None:
        self._may_wait = True  # after a start, nothing is known of them
        self._wanted = self._closed = False
        self._handed: deque[Claimed] = deque()

    @property
    def may_wait(self) -> bool:
        """Whether a job with a twin may be there to be claimed or taken."""
        return self._may_wait or bool(self._handed)

    def look_again(self, found: bool = True) -> None:
        self._may_wait |= found

    def begin_claim(self) -> bool:
        """Whether to ask the database. Whatever lets a job wait from now on counts after this claim."""
        begins, self._may_wait = self._may_wait, False
        return begins

    def want(self) -> None:
        """The queue found none, and would begin one at once."""
        self._wanted = not self._closed

    def reserve(self) -> bool:
        """Whether the caller's transaction is to claim one. If it has not, it calls `want`."""
        wanted, self._wanted = self._wanted, False
        return wanted

    def hand(self, claimed: "Claimed") -> None:
        self._handed.append(claimed)

    def take(self) -> "Claimed | None":
        """What was handed; None: nothing. The queue no longer waits."""
        self._wanted = False
        return self._handed.popleft() if self._handed else None

    def close(self) -> None:
        """The queue takes no further job."""
        self._closed, self._wanted = True, False
