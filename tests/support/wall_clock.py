"""`wall_clock.c`, and the file that it reads: a wall clock that is wrong, in a process and its children."""

import sys
from pathlib import Path

from tests.support.preload import library

SOURCE = Path(__file__).with_name("wall_clock.c")


class WallClock:
    """By how many seconds the clock is ahead of the machine's; it may change while the process runs."""

    def __init__(self, path: Path, ahead_seconds: int = 0) -> None:
        self._path = path
        path.write_bytes(bytes(8))
        self.set(ahead_seconds)

    def set(self, ahead_seconds: int) -> None:
        with self._path.open("r+b") as file:  # in place: the process has mapped it
            file.write(ahead_seconds.to_bytes(8, sys.byteorder, signed=True))

    @property
    def environ(self) -> dict[str, str]:
        """What the process is started with. Raises CalledProcessError."""
        return {"LD_PRELOAD": str(library(SOURCE)), "WALL_CLOCK": str(self._path)}
