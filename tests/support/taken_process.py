"""What a process that a picture has taken over finds: its victims, its descriptors and its task."""

import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.attacks import Victims

SIZE = (320, 200)  # pixels of every picture that takes over its decoder


@dataclass(frozen=True)
class Surroundings(Victims):
    """Further victims: the data folder of a running service, another user's upload that waits in it, and the
    address of a secret in the service's memory.
    """

    data: Path
    waiting: Path
    address: int


def outputs() -> Iterator[int]:
    """Descriptors of the files that this process may write."""
    return (one for one, mode in _writable() if stat.S_ISREG(mode))


def answers() -> int:
    """The descriptor of the pipe on which the warm process waits."""
    return next(one for one, mode in _writable() if stat.S_ISFIFO(mode))


def _writable() -> Iterator[tuple[int, int]]:
    for one in opened():
        if fcntl.fcntl(one, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            yield one, os.fstat(one).st_mode


def opened() -> Iterator[int]:
    for one in range(3, 1024):
        with suppress(OSError):
            os.fstat(one)
            yield one


def task() -> dict[str, Any]:
    """The task of this process: a local variable of a function that has called the decoder."""
    frame = sys._getframe()
    while "task" not in frame.f_locals:
        assert frame.f_back
        frame = frame.f_back
    return dict(frame.f_locals["task"])
