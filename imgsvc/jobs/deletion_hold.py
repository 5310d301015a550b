"""Suspends the removal of job files while a backup copies them."""

from collections.abc import Iterator
from contextlib import contextmanager


class DeletionHold:
    """While the hold is active no file of a job is removed. Rows keep listing their files for housekeeping.

    A removal that is under way when the hold begins belongs to a row that is already marked as deleted or done. A copy
    of the database that is begun under the hold therefore does not need its files.
    """

    def __init__(self) -> None:
        self._holders = 0

    @property
    def active(self) -> bool:
        return self._holders > 0

    @contextmanager
    def held(self) -> Iterator[None]:
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
