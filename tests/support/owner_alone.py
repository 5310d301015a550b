"""`imgsvc` for which permissions count although it is root, and which waits briefly for a locked database.

python -m tests.support.owner_alone serve
"""

import ctypes
import os

from imgsvc.cli import main
from imgsvc.jobs.table import database

CAP_DAC_OVERRIDE = 1
VERSION = 0x20080522  # of capset(2) with sets of 64 bits


def drop_override() -> None:
    """Take CAP_DAC_OVERRIDE from this process. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, first of capabilities 0 to 31
    if libc.capget(header, sets) == 0:
        sets[0] &= ~(1 << CAP_DAC_OVERRIDE)
        if libc.capset(header, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    drop_override()
    database.BUSY_SECONDS = 0.2
    main.main()
