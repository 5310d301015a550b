"""Landlock: takes every path, TCP port, abstract socket and foreign process from the calling process.

Linux, Documentation/userspace-api/landlock.rst; landlock(7). An empty set of rules denies all that the ABI handles.
"""

import errno
import os
import struct

from . import libc

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # one number on all architectures that Python 3.11 runs on
VERSION = 1  # flag of landlock_create_ruleset: return the ABI
KNOWN_ABI = 9
# The number of file rights of an ABI: 2 added moving between folders, 3 truncation, 5 ioctl of devices, 9 connecting to
# sockets by path. A right that the kernel does not know makes it refuse the whole set.
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16, 6: 16, 7: 16, 8: 16, 9: 17}
TCP = 0b11  # bind and connect, from ABI 4
NET_PORT, CONNECT_TCP = 2, 0b10  # LANDLOCK_RULE_NET_PORT, LANDLOCK_ACCESS_NET_CONNECT_TCP
FIRST_WITH_TCP = 4
SCOPED = 0b11  # abstract sockets and signals, from ABI 6
ABSENT = (errno.ENOSYS, errno.EOPNOTSUPP)  # not in the kernel, or not enabled at boot


def usable_abi(at_most: int | None = None) -> int:
    """The newest ABI that this kernel really takes; 0 if it has no Landlock. Raises OSError if it is refused.

    `at_most` holds the ABI down, for tests. The kernel is asked with a set of rules, not only for its version: some
    distributions have kernels that name ABI 6 without its scopes.
    """
    try:
        abi = libc.call("syscall", CREATE_RULESET, None, 0, VERSION)
    except OSError as error:
        if error.errno in ABSENT:
            return 0
        raise
    abi = min(abi, KNOWN_ABI, KNOWN_ABI if at_most is None else at_most)
    while abi > 0:
        try:
            os.close(_ruleset(abi))
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            abi -= 1
        else:
            break
    return abi


def restrict(abi: int, connect_port: int | None = None) -> None:
    """Deny all that this ABI handles to the calling thread, for good. Needs no_new_privs. Raises OSError.

    `connect_port`: the TCP port that it may still connect to, on any host: Landlock knows no addresses.
    """
    ruleset = _ruleset(abi)
    try:
        if connect_port is not None and abi >= FIRST_WITH_TCP:
            rule = struct.pack("=QQ", CONNECT_TCP, connect_port)
            libc.call("syscall", ADD_RULE, ruleset, NET_PORT, rule, 0)
        libc.call("syscall", RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _ruleset(abi: int) -> int:
    """A descriptor of an empty set of rules (struct landlock_ruleset_attr)."""
    handled = [(1 << FILE_RIGHTS[abi]) - 1]
    if abi >= FIRST_WITH_TCP:
        handled.append(TCP)
    if abi >= 6:
        handled.append(SCOPED)
    attributes = struct.pack(f"={len(handled)}Q", *handled)
    return libc.call("syscall", CREATE_RULESET, attributes, len(attributes), 0)
