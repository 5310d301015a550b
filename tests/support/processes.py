"""`imgsvc` as a process: forked from one that has loaded everything, or started afresh where a test says why."""

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import forking, speed
from tests.support.forking import Forked

Process = subprocess.Popen[str] | Forked
LIMIT_SECONDS = 60
# What the interpreter and the C library read as they start: a fork would not have it.
AT_START = re.compile(r"PYTHON(?!PATH$|WARNINGS$)\w+|LD_\w+|TZ|LANG|LC_\w+")


def begin(
    arguments: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    module: str = "imgsvc",
    log: Path | None = None,
    real: str = "",
    inline: bool = False,
    interpreter: Sequence[str] = (sys.executable,),
) -> Process:
    """`python -m MODULE ARGUMENTS`, its output in pipes, its errors in the file `log` where that is given.

    `real`: why a fork would not do. `inline`: a fork that renders in threads.
    """
    if not real and not any(map(AT_START.fullmatch, environ)):
        server = forking.shared()
        return server.start(arguments, folder=folder, environ=environ, module=module, log=log, inline=inline)
    errors = log.open("a") if log else None
    try:
        return subprocess.Popen(
            [*interpreter, "-m", module, *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors or subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        if errors:
            errors.close()


def run(
    arguments: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    module: str = "imgsvc",
    real: str = "",
    seconds: float = LIMIT_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """The same, until it has ended. Raises TimeoutExpired."""
    process = begin(arguments, folder=folder, environ=environ, module=module, real=real)
    try:
        stdout, stderr = process.communicate(timeout=speed.seconds(seconds))
    finally:
        process.kill()
    return subprocess.CompletedProcess([module, *arguments], process.wait(), stdout, stderr)
