"""The limits of a picture's process beside Landlock and seccomp: descriptors, privileges, memory and disk."""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Collection

from ...imaging.limits import MEGABYTE
from . import libc

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
MOST_DESCRIPTORS = 1 << 20  # fs.nr_open, unless an administrator raised it; one system call from Linux 5.9 on
FREE_DESCRIPTORS = 128  # without the cage: the picture, its variants (up to 64), and what the process opens
FIXED_BYTES = 256 * MEGABYTE  # of data of a process without /proc
MAPPINGS_BYTES = 32 * MEGABYTE  # address space beside data: the stack, and what the allocator leaves between its parts


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


# Two sets of three, all empty. Made once: a child has to copy each page that it touches.
NO_CAPABILITIES = ctypes.byref(_Header(CAPABILITY_VERSION, 0)), ctypes.create_string_buffer(24)


def close_descriptors(keep: Collection[int], *, standard: bool) -> None:
    """Close all but these and 0 to 2; with `standard` these three become /dev/null, unless they are kept."""
    if standard:
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in {0, 1, 2}.difference(keep):
            os.dup2(null, descriptor)
    last = 2
    for descriptor in sorted(one for one in keep if one > 2):
        os.closerange(last + 1, descriptor)
        last = descriptor
    os.closerange(last + 1, MOST_DESCRIPTORS)


def tie_to(parent: int) -> None:
    """Die with the parent, and gain no privileges by executing anything. Raises OSError."""
    if sys.platform != "linux":
        return
    libc.call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        raise ProcessLookupError("the parent ended before it could be watched")


def drop_privileges() -> None:
    """Give up root's capabilities, and being read or traced by processes of this user. Raises OSError."""
    libc.call("capset", *NO_CAPABILITIES)
    libc.call("prctl", PR_SET_DUMPABLE, 0, 0, 0, 0)


def limit_growth(memory_bytes: int, *, shared: bool) -> None:
    """Let the process's data grow by this much from now on; with `shared`, count shared mappings and stacks as well.

    RLIMIT_DATA counts private memory that may be written (getrlimit(2)), RLIMIT_AS every mapping.
    """
    mapped, data = _memory()
    _limit(resource.RLIMIT_DATA, data + memory_bytes)
    if shared and mapped is not None:
        _limit(resource.RLIMIT_AS, mapped + memory_bytes + MAPPINGS_BYTES)


def limit_files(descriptors: int, file_bytes: int | None = None) -> None:
    """Allow descriptors below this number and, if given, files up to a size; no core dumps. What is open stays open."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, descriptors)
    if file_bytes is not None:
        _limit(resource.RLIMIT_FSIZE, file_bytes)


def _limit(which: int, most: int) -> None:
    """Lower a limit for good. A lower hard limit of the service's own stays."""
    hard = resource.getrlimit(which)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(which, (most, most))


def _memory() -> tuple[int | None, int]:
    """Bytes that are mapped, None without /proc, and bytes of data, then guessed, of this process (proc(5), statm)."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY)
        try:
            pages = os.read(descriptor, 4096).split()
        finally:
            os.close(descriptor)
        return int(pages[0]) * resource.getpagesize(), int(pages[5]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return None, FIXED_BYTES
