"""`other_clock.c`, compiled into a folder of the test."""

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("other_clock.c")


def clock_off_by(seconds: int, folder: Path) -> dict[str, str]:
    """The environment of a process whose wall clock is wrong by so many seconds. Raises CalledProcessError."""
    library = folder / "other_clock.so"
    if not library.exists():
        command = ["cc", "-std=gnu11", "-O1", "-fPIC", "-shared", "-o", str(library), str(SOURCE)]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(seconds)}
