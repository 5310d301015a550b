"""Calls of the C library that Python does not offer, with errno as OSError."""

import ctypes
import os
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)


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
