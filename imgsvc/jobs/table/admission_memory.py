"""What an upload is let in by, in memory: its user's window, and the most jobs that may be waiting.

So an upload sends no query before its body is read. One process owns the table, and one connection writes. Triggers on
that connection note every change of a window, whichever statement makes it, and it counts in the step in which its
transaction ends, before the caller of the change is answered; where a part was not committed, what was noted is
forgotten. Jobs that wait are not counted but bounded: those of the last count, and one for each change since.

The transaction that accepts the upload decides by the table itself.
"""

from collections import OrderedDict

import aiosqlite

from .quota import Window
from .sql import QUERIES
from .waiting_jobs import WaitingJobs

REMEMBERED = 1000  # users, those who uploaded last
WATCHES = ("watch_window_inserted", "watch_window_updated", "watch_window_deleted")
User = tuple[str, str]  # org, user


class AdmissionMemory:
    def __init__(self, waiting: WaitingJobs) -> None:
        self._waiting = waiting
        self._windows: OrderedDict[User, Window] = OrderedDict()
        self._noted: list[tuple[User, Window | None]] = []
        self._counted: tuple[int, int] | None = None  # jobs, and the changes before they were counted
        self._watching = False

    async def watch(self, db: aiosqlite.Connection) -> None:
        """Note from now on what this connection changes."""
        await db.create_function("window_changed", 4, self._note)
        for query in WATCHES:
            await db.execute(QUERIES[query])
        self._watching = True

    def _note(self, org_id: str, user_id: str, start: str | None, count: int | None) -> None:
        """Called in the connection's thread."""
        window = None if start is None or count is None else Window(start, count)
        self._noted.append(((org_id, user_id), window))

    def settle(self, committed: bool) -> None:
        """Take what the transaction that has just ended has noted. `committed`: all of it is in the table."""
        noted, self._noted = self._noted, []
        for user, window in noted:
            self._windows.pop(user, None)
            if committed and window is not None:
                self._windows[user] = window
        while len(self._windows) > REMEMBERED:
            self._windows.popitem(last=False)

    def known(self, org_id: str, user_id: str, fewer_than: int) -> tuple[int, Window] | None:
        """How many jobs may wait, and the window; None if one of both is not known, or as many may wait."""
        window = self._windows.get((org_id, user_id))
        if window is None or self._counted is None:
            return None
        jobs, changes = self._counted
        most = jobs + self._waiting.total - changes
        return (most, window) if most < fewer_than else None

    @property
    def changes(self) -> int:
        """Read before the jobs that wait are counted, and passed to `counted`."""
        return self._waiting.total

    def counted(self, jobs: int, changes: int) -> None:
        if self._watching:
            self._counted = jobs, changes

    def forget(self) -> None:
        """Forget everything: for rows that were changed past the writer."""
        self._windows.clear()
        self._counted = None
