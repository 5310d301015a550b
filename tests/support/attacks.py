"""What a decoder that a file has taken over would try, each as a function that raises OSError where it is refused.

Victims are a folder of files, a listening server and the parent process. Every attack goes through without a cage.
"""

import ctypes
import errno
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imgsvc.jobs.lanes.libc import call

MEMORY = 64 << 20  # bytes by which the process may grow
FILE = 1 << 20  # bytes of the longest file that it may write
PRCTL = {"x86_64": 157, "aarch64": 167}.get(platform.machine())
HIGH_BIT = 1 << 32  # of a register of which the kernel reads the lower half
F_SETOWN, KEEP_SIZE, TRACE_ME = 8, 1, 0
PDEATHSIG, DUMPABLE, NEW_USER, NEW_NETWORK = 1, 4, 0x10000000, 0x40000000
IO_URING_SETUP, OPENAT2, PIDFD_OPEN = 425, 437, 434
READ_ONLY = struct.pack("QQQ", 0, 0, 0)  # struct open_how


@dataclass(frozen=True)
class Victims:
    """What stands around the process that was taken over. `output` is a descriptor that it holds for writing."""

    folder: Path
    port: int
    abstract: str
    parent: int
    output: int

    @property
    def secret(self) -> Path:
        return self.folder / "secret"


@contextmanager
def victims(folder: Path) -> Iterator[Victims]:
    """A secret, another file and a folder; a TCP and two UNIX servers; this process; and the attacker's own output."""
    for name in ("secret", "other"):
        (folder / name).write_bytes(b"of somebody else")
    (folder / "shelf").mkdir()
    tcp, named, unnamed = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    output = os.open(folder / "output", os.O_RDWR | os.O_CREAT, 0o600)
    with tcp, named, unnamed:
        tcp.bind(("127.0.0.1", 0))
        named.bind(str(folder / "socket"))
        unnamed.bind("")  # The kernel picks an unused abstract name: unix(7), "Autobind feature".
        for server in (tcp, named, unnamed):
            server.listen(1000)
        yield Victims(folder, tcp.getsockname()[1], unnamed.getsockname().decode(), os.getpid(), output)
    os.close(output)


Attack = Callable[[Victims], object]
ATTACKS: dict[str, Attack] = {}


def attack(name: str) -> Callable[[Attack], Attack]:
    def register(function: Attack) -> Attack:
        ATTACKS[name] = function
        return function

    return register


def _register(several: dict[str, Attack]) -> None:
    ATTACKS.update(several)


def reach(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as one:
        one.connect(address)  # type: ignore[arg-type]
        one.send(b"x")


_register(
    {
        "read a file": lambda v: v.secret.read_bytes(),
        "read a file by openat2": lambda v: call(
            "syscall", OPENAT2, -100, os.fsencode(v.secret), READ_ONLY, len(READ_ONLY)
        ),
        "list a folder": lambda v: list(v.folder.iterdir()),
        "create a file": lambda v: (v.folder / "new").write_bytes(b""),
        "make a folder": lambda v: (v.folder / "new folder").mkdir(),
        "rename a file": lambda v: (v.folder / "other").rename(v.folder / "renamed"),
        "delete a folder": lambda v: (v.folder / "shelf").rmdir(),
        "link to a file": lambda v: (v.folder / "link").symlink_to(v.secret),
        "truncate a file by path": lambda v: os.truncate(v.secret, 3),
        "change a file's mode": lambda v: v.secret.chmod(0o666),
        "change the output's mode": lambda v: os.fchmod(v.output, 0o666),
        "change a file's times": lambda v: os.utime(v.secret, (0, 0)),
        "set an attribute": lambda v: os.setxattr(v.output, "user.mark", b"x"),
        "read the parent's environment": lambda v: Path(f"/proc/{v.parent}/environ").read_bytes(),
        "open the parent's memory": lambda v: os.open(f"/proc/{v.parent}/mem", os.O_RDONLY),
        "connect by TCP": lambda v: reach(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", v.port)),
        "send by UDP": lambda v: reach(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", v.port)),
        "connect to a socket's path": lambda v: reach(socket.AF_UNIX, socket.SOCK_STREAM, str(v.folder / "socket")),
        "connect to an abstract socket": lambda v: reach(socket.AF_UNIX, socket.SOCK_STREAM, v.abstract),
        "signal the parent": lambda v: os.kill(v.parent, 0),
        "signal the group": lambda v: os.kill(0, 0),
        "signal through a descriptor's owner": lambda v: call("fcntl", v.output, F_SETOWN, v.parent),
        "open a descriptor of the parent": lambda v: call("syscall", PIDFD_OPEN, v.parent, 0),
        "be traced": lambda v: call("ptrace", TRACE_ME, 0, 0, 0),
        "make the parent yield": lambda v: os.setpriority(os.PRIO_PROCESS, v.parent, os.nice(0)),
        "limit the parent": lambda v: resource.prlimit(v.parent, resource.RLIMIT_CORE, (0, 0)),
        "change its own limit": lambda v: resource.prlimit(0, resource.RLIMIT_CORE, (0, 0)),
        "outlive the parent": lambda v: call("prctl", PDEATHSIG, 0, 0, 0, 0),
        "become readable": lambda v: call("prctl", DUMPABLE, 1, 0, 0, 0),
        "open a namespace": lambda v: call("unshare", NEW_NETWORK if os.getuid() == 0 else NEW_USER | NEW_NETWORK),
        "open an io_uring": lambda v: call("syscall", IO_URING_SETUP, 1, bytes(120)),
        "shared memory of System V": lambda v: call("shmget", 0, 4096, 0o1600),
        "a file in memory": lambda v: os.memfd_create("x"),
        "more memory": lambda v: mmap.mmap(-1, 2 * MEMORY, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
        "more shared memory": lambda v: mmap.mmap(-1, 2 * MEMORY),
        "more memory as a stack": lambda v: mmap.mmap(-1, 2 * MEMORY, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100),
        "another descriptor": lambda v: os.close(os.dup(v.output)),
        "a longer file": lambda v: os.pwrite(v.output, b"x", 2 * FILE),
        "room without length": lambda v: call("fallocate", v.output, KEEP_SIZE, 0, 2 * FILE),
    }
)


@attack("execute a program")
def _(v: Victims) -> None:
    os.close(2)  # what the program's loader says where it has no descriptors
    os.execv("/bin/true", ["true"])


@attack("fork")
def _(v: Victims) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


@attack("start a thread")
def _(v: Victims) -> None:
    try:
        thread = threading.Thread(target=int)
        thread.start()
        thread.join()
    except RuntimeError as error:
        raise OSError(errno.EPERM, str(error)) from None


@attack("signal the parent from a queue")
def _(v: Victims) -> None:
    call("sigqueue", v.parent, 0, 0)


if PRCTL:

    @attack("outlive the parent by a longer number")
    def _(v: Victims) -> None:
        call("syscall", PRCTL, HIGH_BIT | PDEATHSIG, 0, 0, 0, 0)


if platform.machine() == "x86_64":

    @attack("a call of x32")
    def _(v: Victims) -> None:
        call("syscall", 0x40000000 | 41, socket.AF_UNIX, socket.SOCK_STREAM, 0)

    @attack("a call of i386")
    def _(v: Victims) -> None:
        """20 is getpid there, and writev here."""
        rights = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, rights)
        code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        assert function() == os.getpid()


def outcome(status: int, report: bytes) -> str:
    """`went through`, the errno's name, or the signal's."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return signal.Signals(-code).name
    return report.decode() or ("went through" if code == 0 else f"ended with {code}")  # what it executed says nothing
