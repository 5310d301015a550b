"""Standard streams that a parent closed: without them the next file that is opened would be taken for one."""

import os
import sys


def open_standard_streams() -> None:
    """Open /dev/null for each of the three that is closed, and let Python write there."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115, until the process ends
