"""What an authorization server answered, kept for as long as the kind of permission allows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cachetools import TLRUCache

MAX_ENTRIES = 10_000
READING = frozenset(("read", "list", "view", "get"))
ADMINISTERING = frozenset(("admin", "delete", "purge"))


class Question(NamedTuple):
    """May this user of this organisation do that? A tuple, since any joined text could be that of another user."""

    org_id: str
    user_id: str
    permission: str


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How many seconds an answer is believed; 0: not kept."""

    read: float
    write: float
    admin: float
    denied: float

    def of(self, permission: str, allowed: bool) -> float:
        """By the action, the last part of `image:upload`."""
        action = permission.rpartition(":")[2]
        if not allowed:
            return self.denied
        return self.read if action in READING else self.admin if action in ADMINISTERING else self.write


class DecisionCache:
    """The least recently used one makes room. Not enabled, it keeps nothing."""

    def __init__(
        self,
        lifetimes: Lifetimes,
        *,
        enabled: bool = True,
        max_entries: int = MAX_ENTRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lifetimes = lifetimes
        self.enabled = enabled
        self._kept: TLRUCache[Question, bool] = TLRUCache(max_entries, self._end, clock)

    def get(self, question: Question) -> bool | None:
        """None: not known (any more)."""
        return self._kept.get(question)

    def keep(self, question: Question, allowed: bool) -> None:
        if self.enabled:
            self._kept[question] = allowed  # without a lifetime, an older answer goes and none is kept

    def drop(self, org_id: str, user_id: str) -> int:
        """Forget one user; how many answers that were."""
        gone = [question for question in self._kept if question[:2] == (org_id, user_id)]
        return sum(self._kept.pop(question, None) is not None for question in gone)

    def __len__(self) -> int:
        return len(self._kept)

    def _end(self, question: Question, allowed: bool, now: float) -> float:
        return now + self.lifetimes.of(question.permission, allowed)
