"""Calls of the C library that Python does not offer, with errno as OSError."""

import ctypes
import os
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC_WITH_GIL = ctypes.PyDLL(None, use_errno=True)  # which is held during a call
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
LARGE_BYTES = 5 << 18  # more than a piece of a file that is read (1 MB), less than what grows and is made anew
KEPT_FREE_BYTES = 2 << 20  # at the end of the heap


def call(name: str, *arguments: Any) -> int:
    """Call a function of the C library that returns -1 on failure. Raises OSError with errno.

    Integers are passed as `long`, since prctl(2) and syscall(2) read whole registers.
    """
    wide = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
    ctypes.set_errno(0)
    result: int = getattr(LIBC, name)(*wide)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def fork() -> int:
    """fork(2) of a process that has one thread and no Python in others. Raises OSError.

    `os.fork` prepares the child for what threads may have held: new locks, a new seed for `random`. That makes it copy
    150 pages of memory, which takes a third of what such a child takes to begin.
    """
    child: int = LIBC_WITH_GIL.fork()
    if child < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return child


def return_large_blocks() -> None:
    """Let glibc map each large block of memory by itself, which goes back to the system once it is free.

    By default it does so only until the first one is free, and takes later ones of this size from the heap. Python's
    table of interned strings is such a block: each part of a path passes through it, so that it is full after some
    ten thousand jobs and is made anew, and the hole of the old one stays in the heap.
    """
    if hasattr(LIBC, "mallopt"):
        LIBC.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        LIBC.mallopt(M_TRIM_THRESHOLD, KEPT_FREE_BYTES)
