"""Settings of the C library's allocator for this process (mallopt(3))."""

import ctypes
from contextlib import suppress

M_MMAP_THRESHOLD = -3
MAPPED_BYTES = 128 * 1024  # glibc's initial value, which it raises as blocks are freed unless it is set


def map_large_blocks() -> None:
    """Map each large block separately: then only the pages that are written to take memory.

    uvloop allocates 256 KB for each TLS connection, and an idle one has written to 4 KB of them. Blocks cut from memory
    that was used before take all of it.
    """
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
