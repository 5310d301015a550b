"""Speeds up imports of libraries by leaving out parts that are not used."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Pause the garbage collector. What is imported meanwhile stays for good, so that no later collection looks at it.

    Imports allocate far more than they drop: a third of the processor time of a start went into collections.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def without(*names: str) -> Iterator[None]:
    """Make these modules look absent, unless imported already, to libraries that can do without. For commands only."""
    hidden = [name for name in names if name not in sys.modules]
    for name in hidden:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
