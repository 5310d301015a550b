"""Polling of a task: the pauses between two looks, and the callback for its state."""

from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

LOOK_SECONDS = (0.02, 0.05, 0.1, 0.25)  # between polls, the last value repeating: many tasks end soon
Show = Callable[[dict[str, Any]], None]  # called with the task's state as JSON


def pauses() -> Iterator[float]:
    """Yield the seconds between polls, without end."""
    return chain(LOOK_SECONDS, repeat(LOOK_SECONDS[-1]))
