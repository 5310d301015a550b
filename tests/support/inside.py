"""What a decoder that a picture has taken over does, in the process that decodes the picture.

`install` replaces `Decoder.decode` of a warm process before that forks. A picture that ends in MARK and JSON (see
`taken_over`) then runs the attack that the JSON names; every other picture is decoded as usual.
"""

import ctypes
import errno
import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from imgsvc.imaging import pipeline
from imgsvc.imaging.decoder import Decoder
from imgsvc.jobs.lanes import cage, landlock
from imgsvc.jobs.lanes.libc import call
from tests.support import attacks
from tests.support.leaving import LYING, LYING_IN_MOTION, SPOILING, SPOILING_IN_MOTION, prepare
from tests.support.taken_process import Surroundings, answers, opened, outputs

MARK = b"\n== taken over: "
MOST = 1 << 14  # bytes of the orders
REPORT = b"taken over: "
THROUGH = "went through"
PAINTED = bytearray(8)  # of a process: unless it is zero, all variants come out black
BLACK = b"painted!"
GIVEN = {
    "GLIBC_TUNABLES",
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "PYTHONPATH",
}
PTRACE_SEIZE = 0x4206
STREAM = 1 << 20  # bytes written at a time


def install(landlock_abi_at_most: int | None, walls: list[str] | None) -> None:
    """Replace the decoder of this process, and hold its cage down to an ABI of Landlock, or to the walls named."""
    prepare()
    decode, encode = Decoder.decode, vars(pipeline)["encode"]
    usable_abi, all_walls = landlock.usable_abi, vars(cage)["walls"]

    def decoded(self: Decoder, *arguments: Any) -> Any:
        obey(self.stream)
        return decode(self, *arguments)

    def encoded(image: Any, *arguments: Any) -> Any:
        if any(PAINTED):
            image.paste((0, 0, 0), (0, 0, *image.size))
        return encode(image, *arguments)

    def walls_named(*given: Any) -> Any:
        return tuple(wall for wall in all_walls(*given) if walls is None or wall.name in walls)

    vars(pipeline).update(encode=encoded)
    vars(landlock).update(usable_abi=lambda _=None: usable_abi(landlock_abi_at_most))
    vars(cage).update(walls=walls_named)
    Decoder.decode = decoded  # type: ignore[assignment, method-assign]


def obey(stream: BinaryIO) -> None:
    """Run the attack of a picture that carries one, and report in the first output how it ended."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - MOST))
    _, mark, orders = stream.read().rpartition(MARK)
    if not mark:
        return
    output = next(outputs())
    words = attempt(json.loads(orders), output)
    os.ftruncate(output, 0)
    os.pwrite(output, REPORT + words.encode(), 0)
    raise RuntimeError(words)


def attempt(orders: dict[str, Any], output: int) -> str:
    """`went through`, or the name of the errno with which the attack was refused."""
    given = orders["given"] | {name: Path(orders["given"][name]) for name in ("folder", "data", "waiting")}
    try:
        ATTACKS[orders["attack"]](Surroundings(**given | {"output": output}))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    except MemoryError:
        return "ENOMEM"
    return THROUGH


def hold_more(_: Surroundings) -> None:
    """Find a descriptor beside those of the picture and the answer."""
    for one in opened():
        mode = os.fstat(one).st_mode
        if not stat.S_ISREG(mode) and one != answers():
            return
    raise OSError(errno.EBADF, "there is none")


def find_environment(_: Surroundings) -> None:
    if not set(os.environ) - GIVEN:
        raise OSError(errno.ENOENT, "nothing beside what a process needs")


def trace(pid: int) -> None:
    call("ptrace", PTRACE_SEIZE, pid, 0, 0)


def address_of(buffer: bytearray) -> int:
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))


def read_memory(pid: int, address: int, length: int = len(PAINTED)) -> None:
    """process_vm_readv(2)."""
    here = bytearray(length)
    local, remote = (ctypes.c_void_p * 2)(address_of(here), length), (ctypes.c_void_p * 2)(address, length)
    call("process_vm_readv", pid, local, 1, remote, 1, 0)


def paint_here(_: Surroundings) -> None:
    PAINTED[:] = BLACK


def paint_everywhere(_: Surroundings) -> None:
    """Patch the warm process too: what it was forked from has the same addresses."""
    paint_here(_)
    memory = os.open(f"/proc/{os.getppid()}/mem", os.O_RDWR)
    try:
        os.pwrite(memory, BLACK, address_of(PAINTED))
    finally:
        os.close(memory)


def fill_disk(there: Surroundings) -> None:
    """Write far more than the variants can need."""
    for number in range(64):
        os.pwrite(there.output, bytes(STREAM), number * STREAM)


def execute(there: Surroundings) -> None:
    """Become another program, which then reports."""
    os.set_inheritable(there.output, True)
    os.execv("/bin/sh", ["sh", "-c", f"printf '{REPORT.decode()}{THROUGH}' >&{there.output}"])


def spend_time(_: Surroundings) -> NoReturn:
    while True:
        pass


def says(data: bytes) -> Callable[[Surroundings], NoReturn]:
    def say(_: Surroundings) -> NoReturn:
        os.write(answers(), data)
        os._exit(0)

    return say


def say_without_end(_: Surroundings) -> None:
    while True:
        os.write(answers(), b"[" * STREAM)


def ends(status: int) -> Callable[[Surroundings], NoReturn]:
    return lambda _: os._exit(status)


def say_pickle(there: Surroundings) -> None:
    """Unpickled it would leave a file, in the process that unpickles it."""
    bomb = b"cposix\nsystem\n(V" + f"touch {there.folder / 'unpickled'}".encode() + b"\ntR."
    says(bomb)(there)


REACHING: dict[str, Callable[[Surroundings], object]] = {
    "open the database": lambda v: os.close(os.open(v.data / "imgsvc.db", os.O_RDWR)),
    "read the token secret": lambda v: (v.data / "jwt_secret").read_bytes(),
    "read the operator's token": lambda v: (v.data / "operator_token").read_bytes(),
    "read another upload": lambda v: v.waiting.read_bytes(),
    "replace another upload": lambda v: os.close(os.open(v.waiting, os.O_RDWR)),
    "leave a file in the storage": lambda v: (v.data / "storage" / "left").write_bytes(b""),
    "read the service's memory": lambda v: read_memory(v.parent, v.address),
    "read the warm process's memory": lambda v: read_memory(os.getppid(), address_of(PAINTED)),
    "trace the service": lambda v: trace(v.parent),
    "trace the warm process": lambda v: trace(os.getppid()),
    "signal the warm process": lambda v: os.kill(os.getppid(), 0),
    "hold a descriptor of another": hold_more,
    "find a secret in the environment": find_environment,
    "fill the disk": fill_disk,
}
ENDING: dict[str, Callable[[Surroundings], object]] = {
    "spend all time": spend_time,
    "say a pickle": say_pickle,
    "say half an answer": says(b'{"task": "job.1", "outcome": "rende'),
    "say nothing": ends(0),
    "say more than an answer": say_without_end,
    "answer for another task": says(
        b'{"task": "other.1", "outcome": "no_preview", "rendering": null, "error": null, "seconds": 0, "log": null}'
    ),
    "claim that the cage failed": ends(78),
    "fail": lambda _: os.kill(os.getpid(), signal.SIGSEGV),
}
STAYING: dict[str, Callable[[Surroundings], object]] = {
    "paint its own picture": paint_here,
    "paint all pictures": paint_everywhere,
}
ATTACKS: dict[str, Callable[[Any], object]] = {
    **REACHING,
    **attacks.ATTACKS,
    "execute a program": execute,
    **ENDING,
    **LYING,
    **LYING_IN_MOTION,
    **SPOILING,
    **SPOILING_IN_MOTION,
    **STAYING,
}
