"""Two clocks that must agree before anything is removed because its time has come.

The wall clock can jump: a battery is empty, an administrator mistypes a year, a virtual machine is restored. What was
removed then would be lost. So each minute the wall clock is compared with the time since the boot (CLOCK_BOOTTIME,
clock_gettime(2), which counts while the machine is suspended and can't be set). After a disagreement nothing is
removed by time until both have agreed for an hour. Reads follow the wall clock all the same.
"""

import time
from collections.abc import Callable
from pathlib import Path

import aiosqlite
import structlog

from ..lazy_dataclass import dataclass
from .periodic import repeat
from .table.sql import QUERIES
from .table.writer import Writer

log = structlog.get_logger()

TOLERANCE_SECONDS = 300.0  # between the steps of both clocks
AGREEMENT_SECONDS = 3600.0  # how long they must have agreed after a disagreement
LONGEST_STOP_SECONDS = 7 * 86400.0  # between the last reading and a start
EVERY_SECONDS = 60.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CLOCK_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Reading:
    """Both clocks at one moment, in seconds: since 1970, and since the boot with this ID."""

    wall: float
    boot: float
    boot_id: str

    @classmethod
    def now(cls) -> "Reading":
        try:
            boot_id = BOOT_ID.read_text().strip()
        except OSError:  # not Linux
            boot_id = ""
        return cls(time.time(), time.clock_gettime(CLOCK_BOOTTIME), boot_id)


class Clocks:
    """`before`: the last reading of the service's life before; None: there was none. `doubted`: it ended in doubt."""

    def __init__(
        self, before: Reading | None = None, *, doubted: bool = False, read: Callable[[], Reading] = Reading.now
    ) -> None:
        self._read = read
        self._base = read()
        self._agreed_since = self._base.boot - AGREEMENT_SECONDS
        if doubted or (before is not None and not _plausible(before, self._base)):
            self._doubt(self._base)

    @property
    def agree(self) -> bool:
        """Whether what has expired may be removed. Reads both clocks."""
        current = self._read()
        if abs(_drift(self._base, current)) > TOLERANCE_SECONDS:
            self._doubt(current)
        elif current.boot - self._base.boot >= AGREEMENT_SECONDS:
            self._base = current  # what is slewed over months is no jump
        return current.boot - self._agreed_since >= AGREEMENT_SECONDS

    @property
    def seconds_left(self) -> float:
        """Until removals go on, if both clocks agree until then; 0: they go on."""
        return 0.0 if self.agree else self._agreed_since + AGREEMENT_SECONDS - self._read().boot

    @property
    def current(self) -> Reading:
        return self._read()

    def _doubt(self, current: Reading) -> None:
        self._base, self._agreed_since = current, current.boot
        log.error("clocks_disagree", removals_held_seconds=AGREEMENT_SECONDS)


def _drift(before: Reading, after: Reading) -> float:
    """By how many seconds the wall clock went further than the other."""
    return (after.wall - before.wall) - (after.boot - before.boot)


def _plausible(before: Reading, after: Reading) -> bool:
    """Whether the service may have stopped at one reading and started at the other."""
    if not 0 <= after.wall - before.wall <= LONGEST_STOP_SECONDS:
        return False
    return before.boot_id != after.boot_id or abs(_drift(before, after)) <= TOLERANCE_SECONDS


async def stored_clocks(db: aiosqlite.Connection) -> Clocks:
    """Compare with the reading that the database has. Raises sqlite3.Error."""
    rows = list(await db.execute_fetchall(QUERIES["clocks"]))
    if not rows or rows[0]["clock_wall"] is None:
        return Clocks()
    wall, boot, boot_id, doubted = rows[0]
    return Clocks(Reading(wall, boot, boot_id), doubted=bool(doubted))


class ClockKeeper:
    """Stores a reading each minute."""

    def __init__(self, clocks: Clocks, writer: Writer) -> None:
        self._clocks = clocks
        self._write = writer.write

    async def run(self) -> None:
        await repeat(self.store, EVERY_SECONDS, "clocks_not_stored")

    async def store(self) -> None:
        """Raises DatabaseUnavailable."""
        agree, found = self._clocks.agree, self._clocks.current
        values = {"wall": found.wall, "boot": found.boot, "boot_id": found.boot_id, "doubted": int(not agree)}

        async def change(db: aiosqlite.Connection) -> None:
            await db.execute(QUERIES["store_clocks"], values)

        await self._write(change)
