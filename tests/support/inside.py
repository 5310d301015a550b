"""What a decoder that a picture has taken over does, in the process that decodes the picture.

`install` replaces `Decoder.decode` of a warm process before that forks. A picture that ends in MARK and JSON (see
`taken_over`) then runs the attack that the JSON names; every other picture is decoded as usual.
"""

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from fixtures import make
from imgsvc.imaging import pipeline
from imgsvc.imaging.decoder import Decoder
from imgsvc.imaging.encode import Encoded
from imgsvc.imaging.geometry import fit
from imgsvc.imaging.pipeline import Rendering
from imgsvc.imaging.recipe import Recipe
from imgsvc.jobs.lanes import cage, landlock
from imgsvc.jobs.lanes.libc import call
from tests.support import attacks
from tests.support.attacks import Victims

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
SIZE = (320, 200)  # pixels of every picture that takes over its decoder
HUGE = (16_383, 16_383)


@dataclass(frozen=True)
class Surroundings(Victims):
    """Further victims: the data folder of a running service, another user's upload that waits in it, and the
    address of a secret in the service's memory.
    """

    data: Path
    waiting: Path
    address: int


def install(landlock_abi_at_most: int | None, walls: list[str] | None) -> None:
    """Replace the decoder of this process, and hold its cage down to an ABI of Landlock, or to the walls named."""
    decode, encode = Decoder.decode, vars(pipeline)["encode"]
    usable_abi, all_walls = landlock.usable_abi, vars(cage)["walls"]

    def decoded(self: Decoder, pieces: Any, side: int) -> Any:
        obey(self.stream)
        return decode(self, pieces, side)

    def encoded(image: Any, *arguments: Any) -> Any:
        if any(PAINTED):
            image.paste((0, 0, 0), (0, 0, *image.size))
        return encode(image, *arguments)

    def walls_named(*given: Any) -> Any:
        return tuple(wall for wall in all_walls(*given) if walls is None or wall.name in walls)

    vars(pipeline).update(encode=encoded)
    vars(landlock).update(usable_abi=lambda _=None: usable_abi(landlock_abi_at_most))
    vars(cage).update(walls=walls_named)
    Decoder.decode = decoded  # type: ignore[method-assign]


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


def outputs() -> Iterator[int]:
    """Descriptors of the files that this process may write."""
    return (one for one, mode in _writable() if stat.S_ISREG(mode))


def answers() -> int:
    """The descriptor of the pipe on which the warm process waits."""
    return next(one for one, mode in _writable() if stat.S_ISFIFO(mode))


def _writable() -> Iterator[tuple[int, int]]:
    for one in _open():
        if fcntl.fcntl(one, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            yield one, os.fstat(one).st_mode


def _open() -> Iterator[int]:
    for one in range(3, 1024):
        with suppress(OSError):
            os.fstat(one)
            yield one


def hold_more(_: Surroundings) -> None:
    """Find a descriptor beside those of the picture and the answer."""
    for one in _open():
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


def leaves(
    picture: Callable[[tuple[int, int]], bytes], size: tuple[int, int] | None = None
) -> Callable[[Surroundings], NoReturn]:
    """Write `picture(size)` to each output and answer that all went well, with the true size or with this one."""

    def leave(_: Surroundings) -> NoReturn:
        task = _task()
        sides = {variant.name: variant.side for variant in Recipe.from_json(task["recipe"]).variants}
        variants = []
        for name, output in zip(task["outputs"], outputs(), strict=True):
            width, height = size or fit(SIZE, sides[name])
            data = picture((width, height))
            os.ftruncate(output, 0)
            os.pwrite(output, data, 0)
            digest = hashlib.sha256(data).hexdigest()
            variants.append(asdict(Encoded(name, width, height, len(data), digest)))
        rendering = asdict(Rendering(*SIZE, "#000000", 1, ())) | {"variants": variants}
        answer = {"outcome": "rendered", "rendering": rendering, "error": None, "seconds": 0.0, "log": None}
        os.write(answers(), json.dumps({"task": task["id"], **answer}).encode())
        os._exit(0)

    return leave


def _task() -> dict[str, Any]:
    """The task of this process: a local variable of a function that has called the decoder."""
    frame = sys._getframe()
    while "task" not in frame.f_locals:
        assert frame.f_back
        frame = frame.f_back
    return dict(frame.f_locals["task"])


def quadrants(size: tuple[int, int]) -> bytes:
    return make.encoded(make.quadrants(*size), "WEBP")


def leave_link(there: Surroundings) -> None:
    """Put a link to a secret in the place of an output: /proc shows its path to a process that may look."""
    path = Path(f"/proc/self/fd/{there.output}").readlink()
    path.unlink()
    path.symlink_to(there.data / "jwt_secret")
    leaves(quadrants)(there)


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
LYING: dict[str, Callable[[Surroundings], object]] = {
    "leave a huge picture": leaves(lambda _: make.one_colour_webp(*HUGE)),
    "leave a huge picture and say so": leaves(lambda _: make.one_colour_webp(*HUGE), HUGE),
    "leave a picture with a place": leaves(lambda size: make.encoded(make.quadrants(*size), "WEBP", exif=make.exif())),
    "leave a link": leave_link,
    "leave a page": leaves(lambda _: b"<script>alert(1)</script>"),
}
SPOILING: dict[str, Callable[[Surroundings], object]] = {
    "leave another picture": leaves(quadrants),
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
    **SPOILING,
    **STAYING,
}
