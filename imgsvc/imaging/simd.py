"""Chooses the build of pillow-simd for this processor. Call `choose` before anything imports PIL.

A build for AVX2 crashes with an illegal instruction on a processor without AVX2; a build for SSE4.1 runs on both but is
slower. The container image holds both: the SSE4.1 build is the installed PIL, the AVX2 build is in
`{sys.prefix}/simd/avx2`. The file `{sys.prefix}/simd/build` names the build of the installed PIL: `sse4_1`, `avx2` or
`none` (plain Pillow). Without that file nothing is chosen.
"""

import platform
import sys
from contextlib import suppress
from pathlib import Path

NONE = "none"  # the build is plain Pillow
INSTRUCTIONS = {"sse4_1": "SSE4.1 (x86-64-v2)", "avx2": "AVX2 (x86-64-v3)"}
# cpuid(leaf in edi, subleaf in esi, uint32[4] in rdx), as the System V ABI passes them.
CPUID = bytes.fromhex("53 4989d0 89f8 89f1 0fa2 418900 41895804 41894808 4189500c 5b c3")
XGETBV = bytes.fromhex("31c9 0f01d0 c3")  # which registers the operating system saves
SSE4_1, OSXSAVE = 1 << 19, 1 << 27  # of leaf 1, ecx
AVX2 = 1 << 5  # of leaf 7, ebx
AVX_STATE = 0b110  # SSE and AVX registers


class UnsuitableProcessor(Exception):
    """The build needs instructions that this processor lacks. The message is a sentence for the operator."""


def choose(prefix: Path | None = None) -> str | None:
    """Put the best build first in `sys.path` and return its name; None if the installed build is unknown.

    Raises UnsuitableProcessor.
    """
    folder = (prefix or Path(sys.prefix)) / "simd"
    try:
        built = (folder / "build").read_text("ascii").strip()
    except OSError:
        return None
    if built not in INSTRUCTIONS:
        return built
    features = processor_features()
    fast = folder / "avx2"
    if "avx2" in features and fast.is_dir():
        if str(fast) not in sys.path:
            sys.path.insert(0, str(fast))
        return "avx2"
    if built not in features:
        raise UnsuitableProcessor(
            f"This processor has no {INSTRUCTIONS[built]}, which this build of pillow-simd needs. "
            "Build it on this machine, or the container image with --build-arg SIMD=none."
        )
    return built


def processor_features() -> set[str]:
    """Return which of `sse4_1` and `avx2` the processor has and the operating system supports."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return set()
    try:
        return _asked()
    except (OSError, ValueError):  # executable memory is forbidden here (systemd's MemoryDenyWriteExecute)
        return _read()


def _asked() -> set[str]:
    """Ask with the CPUID instruction, which emulators answer too; their /proc/cpuinfo is the host's."""
    basic, extended = _cpuid(1), _cpuid(7)
    found = {"sse4_1"} if basic[2] & SSE4_1 else set()
    if basic[2] & OSXSAVE and extended[1] & AVX2 and _call(XGETBV) & AVX_STATE == AVX_STATE:
        found.add("avx2")
    return found


def _read() -> set[str]:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:  # noqa: PTH123
        for line in lines:
            if line.startswith("flags"):
                return {"sse4_1", "avx2"} & set(line.split())
    return set()


def _cpuid(leaf: int) -> list[int]:
    import ctypes  # here, since most starts know nothing of their build and need neither

    registers = (ctypes.c_uint32 * 4)()
    _call(CPUID, leaf, 0, ctypes.addressof(registers))
    return list(registers)


def _call(code: bytes, *arguments: int) -> int:
    import ctypes
    import mmap

    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as memory:
        memory.write(code)
        place = ctypes.c_char.from_buffer(memory)
        try:
            types = [ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p][: len(arguments)]
            return int(ctypes.CFUNCTYPE(ctypes.c_uint32, *types)(ctypes.addressof(place))(*arguments))
        finally:
            del place
