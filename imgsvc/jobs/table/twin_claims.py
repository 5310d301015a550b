"""Claims of jobs that have a twin, and so need no lane."""

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .transactions import Claimed


class TwinClaims:
    """Whether such jobs may wait, and whether the queue waits for one.

    While it does, a transaction that accepts an upload may reserve the claim of such a job, and make it too. What it
    has claimed is handed to the queue: a transaction less, and no wait for its sync.
    """

    def __init__(self) -> None:
        self._may_wait = True  # after a start, nothing is known of them
        self._wait = 0  # the number of the queue's wait
        self._free = False  # to be reserved: the queue waits, and no transaction has reserved this
        self._handed: deque[Claimed] = deque()
        self.closed = False  # the queue takes no further job

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
        """The queue found none, and waits for one."""
        self._free = True

    def reserve(self) -> int | None:
        """The number of the queue's wait, for which the caller's transaction is to claim a job; None: it is not.

        If it has claimed none, `return_reservation` is called.
        """
        if not self._free or self.closed:
            return None
        self._free = False
        return self._wait

    def return_reservation(self, wait: int) -> None:
        """Leave the claim to the next one, unless the queue no longer waits."""
        if wait == self._wait:
            self._free = True

    def hand(self, claimed: "Claimed") -> None:
        self._handed.append(claimed)

    def take(self) -> "Claimed | None":
        """What was handed; None: nothing."""
        return self._handed.popleft() if self._handed else None

    def holds(self, job_id: str, run: int) -> bool:
        """Whether this run is claimed and not taken yet, which it is as soon as one may begin."""
        return any((one.job.job_id, one.job.run) == (job_id, run) for one in self._handed)

    def stop_waiting(self) -> None:
        """The queue takes what was handed to it, or claims a job itself."""
        self._wait += 1
        self._free = False

    def close(self) -> None:
        """The queue takes no further job: what is handed from now on is given back by who hands it."""
        self.closed = True
