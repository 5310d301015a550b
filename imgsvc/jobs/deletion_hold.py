"""Holding removals back while somebody copies what the rows name."""

from collections.abc import Iterator
from contextlib import contextmanager


class DeletionHold:
    """While it is held no file of a job is removed. Rows go on listing theirs, so that housekeeping finds them later.

    A removal that is under way when the hold begins is of a row that says so already: a copy of the database that is
    begun under the hold does not need its files.
    """

    def __init__(self) -> None:
        self._holders = 0

    @property
    def active(self) -> bool:
        return self._holders > 0

    @contextmanager
    def holding(self) -> Iterator[None]:
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
