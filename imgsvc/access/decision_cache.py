"""A cache of authorization decisions, whose lifetime depends on the kind of permission."""

import time
from collections.abc import Callable
from typing import NamedTuple

from cachetools import TLRUCache

from ..lazy_dataclass import dataclass

MAX_ENTRIES = 10_000
READING = frozenset(("read", "list", "view", "get"))
ADMINISTERING = frozenset(("admin", "delete", "purge"))


class Question(NamedTuple):
    """A user, organisation and permission. A tuple, since joined texts of different users could be equal."""

    org_id: str
    user_id: str
    permission: str


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Lifetimes of decisions in seconds; 0: not cached."""

    read: float
    write: float
    admin: float
    denied: float

    def of(self, permission: str, allowed: bool) -> float:
        """The lifetime, chosen by the action: the last part of `image:upload`."""
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
        """The cached decision; None if there is none or it has expired."""
        return self._kept.get(question)

    def keep(self, question: Question, allowed: bool) -> None:
        if self.enabled:
            self._kept[question] = allowed  # a lifetime of 0 drops an earlier decision and keeps none

    def drop(self, org_id: str, user_id: str) -> int:
        """Drop the decisions of one user; returns their number."""
        gone = [question for question in self._kept if question[:2] == (org_id, user_id)]
        return sum(self._kept.pop(question, None) is not None for question in gone)

    def __len__(self) -> int:
        return len(self._kept)

    def _end(self, question: Question, allowed: bool, now: float) -> float:
        return now + self.lifetimes.of(question.permission, allowed)
