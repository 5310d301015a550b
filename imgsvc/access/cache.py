"""What an authorization server answered, kept for as long as the kind of permission allows."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

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


class Answers:
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
        self._max_entries = max_entries
        self._clock = clock
        self._kept: OrderedDict[Question, tuple[bool, float]] = OrderedDict()

    def get(self, question: Question) -> bool | None:
        """None: not known (any more)."""
        if question not in self._kept:
            return None
        allowed, end = self._kept[question]
        if self._clock() >= end:
            del self._kept[question]
            return None
        self._kept.move_to_end(question)
        return allowed

    def keep(self, question: Question, allowed: bool) -> None:
        lifetime = self.lifetimes.of(question.permission, allowed)
        self._kept.pop(question, None)
        if not self.enabled or lifetime <= 0:
            return
        self._kept[question] = (allowed, self._clock() + lifetime)
        if len(self._kept) > self._max_entries:
            self._kept.popitem(last=False)

    def drop(self, org_id: str, user_id: str) -> int:
        """Forget one user; how many answers that were."""
        known = self._living()
        gone = [question for question in known if question[:2] == (org_id, user_id)]
        for question in gone:
            del self._kept[question]
        return len(gone)

    def __len__(self) -> int:
        return len(self._living())

    def _living(self) -> list[Question]:
        now = self._clock()
        for question in [question for question, (_, end) in self._kept.items() if now >= end]:
            del self._kept[question]
        return list(self._kept)
