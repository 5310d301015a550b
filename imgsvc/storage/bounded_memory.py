"""A bounded memory of what reads have fetched: the least recently read goes first (LRU)."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import field
from typing import Any

from ..lazy_dataclass import dataclass


@dataclass(slots=True, eq=False)
class Fetch:
    """One fetch from disk, and the keys that were forgotten while it ran: its result may be older than they are."""

    forgotten: set[Hashable] = field(default_factory=set)
    all_forgotten: bool = False


class BoundedMemory:
    """Values of at most `max_bytes` together, as their `put` counts them. 0 keeps nothing.

    For one event loop: a `get`, a `put` and a `forget` are one step each.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.largest = max_bytes // 8  # bytes of one value: a larger one would push out too many others
        self.held_bytes = 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._fetches: set[Fetch] = set()

    def get(self, key: Hashable) -> Any:
        """The value; None if there is none."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    @contextmanager
    def fetch(self) -> Iterator[Fetch]:
        """Begin before the bytes are read that `put` is to keep."""
        fetch = Fetch()
        self._fetches.add(fetch)
        try:
            yield fetch
        finally:
            self._fetches.discard(fetch)

    def put(self, fetch: Fetch, key: Hashable, value: Any, size_bytes: int) -> None:
        """Keep a value that was fetched, unless its key was forgotten meanwhile or it is larger than `largest`."""
        if size_bytes > self.largest or fetch.all_forgotten or key in fetch.forgotten:
            return
        self._drop(key)
        self._kept[key] = (value, size_bytes)
        self.held_bytes += size_bytes
        while self.held_bytes > self.max_bytes:
            _, (_, dropped) = self._kept.popitem(last=False)
            self.held_bytes -= dropped

    def forget(self, key: Hashable) -> None:
        """Drop the value, and keep none that is being fetched now."""
        self._drop(key)
        for fetch in self._fetches:
            fetch.forgotten.add(key)

    def clear(self) -> None:
        """Forget everything, and keep nothing that is being fetched now."""
        self._kept.clear()
        self.held_bytes = 0
        for fetch in self._fetches:
            fetch.all_forgotten = True

    def _drop(self, key: Hashable) -> None:
        found = self._kept.pop(key, None)
        if found is not None:
            self.held_bytes -= found[1]
