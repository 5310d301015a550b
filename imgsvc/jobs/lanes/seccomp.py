"""A seccomp filter that refuses the system calls which reach beyond a process, built through the system's libseccomp.

seccomp(2), seccomp_rule_add(3). A list of what is refused and not of what is allowed: rare calls of a C library, a
codec or a processor would break an allow-list for some users and not for others. New calls of later kernels are refused
as if the kernel did not have them.

The filter compares arguments as the kernel reads them: where that takes 32 bits, the others are masked away, since a
bit above them would make the comparison fail and the call go through.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any, Self

from . import libc

LIBRARY, PACKAGE = "libseccomp.so.2", "libseccomp2"
ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ON_FOREIGN_ARCHITECTURE, OPTIMIZE, BINARY_TREE = 2, 8, 2  # SCMP_FLTATR_ACT_BADARCH, SCMP_FLTATR_CTL_OPTIMIZE
NOT_EQUAL, EQUAL_UNDER_MASK = 1, 7  # enum scmp_compare
PR_SET_SECCOMP, MODE_FILTER = 22, 2
INT = 0xFFFFFFFF

# A picture's process holds the descriptors that it needs: paths are refused here as by Landlock, for kernels without.
PATHS = (
    "open openat openat2 creat open_tree open_by_handle_at name_to_handle_at mkdir mkdirat mknod mknodat rename "
    "renameat renameat2 link linkat symlink symlinkat unlink unlinkat rmdir truncate truncate64 uselib chroot "
    "inotify_init inotify_init1 inotify_add_watch fanotify_init fanotify_mark"
)
REFUSED = {
    "sockets": "socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg",
    "other ways between processes": "shmget shmat shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl "
    "mq_open mq_unlink memfd_create memfd_secret",
    "programs and processes": "execve execveat fork vfork",  # and clone: see `_beginnings`
    "other processes": "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp move_pages "
    "migrate_pages rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal pidfd_getfd",
    # fallocate can take room beyond RLIMIT_FSIZE.
    "what a file is": "chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat "
    "setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr setxattrat removexattrat file_setattr "
    "fallocate",
    "its own limits and rights": "setrlimit setpriority ioprio_set sched_setaffinity sched_setscheduler sched_setparam "
    "sched_setattr setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset personality",
    "namespaces and mounts": "unshare setns mount umount umount2 mount_setattr move_mount fsopen fsconfig fsmount "
    "fspick open_tree_attr pivot_root statmount listmount",
    "parts of the kernel with a history of faults": "bpf perf_event_open userfaultfd io_uring_setup io_uring_enter "
    "io_uring_register keyctl add_key request_key modify_ldt lookup_dcookie nfsservctl _sysctl vm86 vm86old",
    "the machine": "init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct "
    "quotactl quotactl_fd syslog sync syncfs vhangup sethostname setdomainname settimeofday stime clock_settime "
    "adjtimex clock_adjtime iopl ioperm",
    "names of the same calls on 32-bit architectures": "send recv recvmmsg_time64 semtimedop_time64 chown32 fchown32 "
    "lchown32 utimensat_time64 setuid32 setgid32 setreuid32 setregid32 setresuid32 setresgid32 setgroups32 setfsuid32 "
    "setfsgid32 clock_settime64 clock_adjtime64",
}
# Numbers of calls that an older libseccomp does not know by name: from 424 on, one number on all architectures.
NUMBERS = {
    "quotactl_fd": 443,
    "memfd_secret": 447,
    "process_mrelease": 448,
    "fchmodat2": 452,
    "statmount": 457,
    "listmount": 458,
    "setxattrat": 463,
    "removexattrat": 466,
    "open_tree_attr": 467,
    "file_setattr": 469,
}
# What a process that connects to a server needs beyond a picture's: threads, and sockets, with FIONBIO (ioctl).
OF_A_CLIENT = frozenset(
    ("socket", "connect", "sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg", "clone", "ioctl")
)
CLONE_THREAD, FAMILIES, SOCKET_KIND = 0x10000, 64, 0xF
UNKNOWN_CALLS = range(470, 600)  # of kernels after 6.18; 600 leaves room for more than ten years
UNKNOWN_NAME = -1  # __NR_SCMP_ERROR; other negative numbers are calls that this architecture has not

# fcntl(2): a descriptor's owner gets its signals, whichever process that is. The other two take other processes' room.
F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ = 8, 10, 15, 1024, 1026, 1031
MAP_SHARED, MAP_ANONYMOUS = 0x01, 0x20
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_PTRACER = 1, 4, 0x59616D61
CLONE_THREAD, CLONE_NEW = 0x00010000, 0x7E020000  # a thread; any new namespace (clone(2))


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("argument", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _masked(argument: int, mask: int, value: int) -> _Comparison:
    return _Comparison(argument, EQUAL_UNDER_MASK, mask, value)


def _by_argument() -> Iterator[tuple[str, int, _Comparison]]:
    """(call, errno, comparison) of the calls that are refused only with certain arguments."""
    for option in (PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_PTRACER):
        yield "prctl", errno.EPERM, _masked(0, INT, option)
    for command in (F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ):
        yield "fcntl", errno.EPERM, _masked(1, INT, command)
        yield "fcntl64", errno.EPERM, _masked(1, INT, command)
    # getrlimit(3) is prlimit64 of oneself without a new limit.
    yield "prlimit64", errno.EPERM, _Comparison(0, NOT_EQUAL, 0, 0)
    yield "prlimit64", errno.EPERM, _Comparison(2, NOT_EQUAL, 0, 0)
    shared = MAP_SHARED | MAP_ANONYMOUS  # memory that RLIMIT_DATA does not count
    yield "mmap", errno.EPERM, _masked(3, shared, shared)
    yield "mmap2", errno.EPERM, _masked(3, shared, shared)


class SeccompFilter:
    """The filter as a program for the kernel; `load` puts it on the calling process."""

    def __init__(self, program: bytes, signalling: tuple[int, ...], clone: int, *, threads: bool = False) -> None:
        self._program = program
        self._signalling = signalling
        self._clone = clone
        self._threads = threads

    @classmethod
    def build(cls, *, connects: bool = False) -> Self:
        """`connects`: for the gateway, which has threads and TCP connections.

        Raises OSError, with the Debian package in the message if the library is missing.
        """
        library = _library()
        context = library.seccomp_init(ALLOW)
        try:
            for name, action, comparison in _rules_of_gateway() if connects else _rules():
                number = _number(library, name)
                if number != UNKNOWN_NAME:
                    _add(library, context, action, number, comparison)
            for number in UNKNOWN_CALLS:
                _add(library, context, ERRNO | errno.ENOSYS, number, None)
            _checked(library.seccomp_attr_set(context, ON_FOREIGN_ARCHITECTURE, KILL_PROCESS), "foreign architectures")
            library.seccomp_attr_set(context, OPTIMIZE, BINARY_TREE)  # libseccomp 2.5; older ones compare in a row
            signalling = tuple(_number(library, name) for name in ("kill", "tkill", "tgkill"))
            return cls(_exported(library, context), signalling, _number(library, "clone"), threads=connects)
        finally:
            library.seccomp_release(context)

    def with_threads(self) -> Self:
        """The same filter, but threads may be started."""
        return type(self)(self._program, self._signalling, self._clone, threads=True)

    def load(self) -> None:
        """Put the filter on the calling process, for good. Needs no_new_privs, and one thread. Raises OSError."""
        whole = self._own_process_only(os.getpid()) + self._beginnings() + self._program
        program = _Program(len(whole) // 8, whole)
        libc.call("prctl", PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(program), 0, 0)

    def _own_process_only(self, pid: int) -> bytes:
        """Instructions that refuse signals to all but this process, and go on to the rest (linux/bpf_common.h).

        They stand apart since the pid is known in the child alone, and the library takes a millisecond for a rule.
        """
        load, equal, answer = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
        first_argument = 16 if sys.byteorder == "little" else 20  # its lower half, in struct seccomp_data
        kill, tkill, tgkill = self._signalling
        instructions = (
            (load, 0, 0, 0),
            (equal, 2, 0, kill),
            (equal, 1, 0, tkill),
            (equal, 0, 3, tgkill),
            (load, 0, 0, first_argument),
            (equal, 1, 0, pid),
            (answer, 0, 0, ERRNO | errno.EPERM),
        )
        return b"".join(struct.pack("=HBBI", *one) for one in instructions)

    def _beginnings(self) -> bytes:
        """Instructions that refuse clone(2), except to start a thread where that is allowed.

        Thousands of threads would take the service's own places, and most codecs need none. The flags are the first
        argument on these two architectures alone.
        """
        load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06  # BPF_JMP|JSET|K is the third
        first_argument = 16 if sys.byteorder == "little" else 20
        allowed = self._threads and platform.machine() in ("x86_64", "aarch64")
        look = ((load, 0, 0, first_argument), (any_bit, 1, 0, CLONE_NEW), (any_bit, 1, 0, CLONE_THREAD))
        instructions = (
            (load, 0, 0, 0),
            (equal, 0, 4 if allowed else 1, self._clone),
            *(look if allowed else ()),
            (answer, 0, 0, ERRNO | errno.EPERM),
        )
        return b"".join(struct.pack("=HBBI", *one) for one in instructions)


def ask_kernel() -> None:
    """Let the library ask what this kernel has, by seccomp(2), as it does before it builds a filter.

    A filter around this service may end the process for it. Raises OSError without the library.
    """
    library = _library()
    library.seccomp_release(library.seccomp_init(ALLOW))


def _rules() -> Iterator[tuple[str, int, _Comparison | None]]:
    for name in PATHS.split():
        yield name, ERRNO | errno.EACCES, None
    for name in " ".join(REFUSED.values()).split():
        yield name, ERRNO | errno.EPERM, None
    yield "clone3", ERRNO | errno.ENOSYS, None  # its flags are behind a pointer; the C library then takes clone
    yield "ioctl", ERRNO | errno.ENOTTY, None  # as for a descriptor that is no device: isatty(3) says no
    for name, number, comparison in _by_argument():
        yield name, ERRNO | number, comparison


def _rules_of_gateway() -> Iterator[tuple[str, int, _Comparison | None]]:
    """The same, but for threads and for sockets that connect: of the internet's families, and streams only."""
    for name, action, comparison in _rules():
        if name not in OF_A_CLIENT:
            yield name, action, comparison
    yield "clone", ERRNO | errno.EPERM, _masked(0, CLONE_THREAD, 0)
    for family in range(FAMILIES):
        if family not in (socket.AF_INET, socket.AF_INET6):
            yield "socket", ERRNO | errno.EPERM, _masked(0, INT, family)
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_RDM, socket.SOCK_SEQPACKET):
        yield "socket", ERRNO | errno.EPERM, _masked(1, SOCKET_KIND, int(kind))


def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        raise FileNotFoundError(
            errno.ENOENT, f"the library {LIBRARY} is missing: install the package {PACKAGE}"
        ) from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    ]
    return library


def _number(library: Any, name: str) -> int:
    number: int = library.seccomp_syscall_resolve_name(name.encode())
    return NUMBERS.get(name, UNKNOWN_NAME) if number == UNKNOWN_NAME else number


def _add(library: Any, context: int, action: int, number: int, comparison: _Comparison | None) -> None:
    comparisons = (_Comparison * 1)(comparison) if comparison else None
    _checked(
        library.seccomp_rule_add_array(context, action, number, int(comparison is not None), comparisons),
        f"system call {number}",
    )


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise OSError(-result, f"{os.strerror(-result)} ({what})")


def _exported(library: Any, context: int) -> bytes:
    """The program, by way of a pipe: some kilobytes, and a pipe holds 64."""
    read, write = os.pipe()
    try:
        _checked(library.seccomp_export_bpf(context, write), "export")
        os.close(write)
        write = -1
        return os.read(read, 1 << 16)
    finally:
        os.close(read)
        if write >= 0:
            os.close(write)
