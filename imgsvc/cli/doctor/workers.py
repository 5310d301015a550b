"""Checks the cage that each picture is decoded in, by trying its walls."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ...jobs.lanes.cage import Posture, in_words
from ...jobs.lanes.seccomp import PACKAGE
from ...settings import Settings
from .finding import Finding, warning, well, wrong

CAGING = Path(__file__).with_name("caging.py")
LIMIT_SECONDS = 15
FOR_SECCOMP = f"install {PACKAGE}, and let a container's seccomp profile allow seccomp"
FOR_LANDLOCK = (
    "enable Landlock in the kernel (5.13 or later, lsm=landlock), and let a container's profile allow landlock_*"
)


def cage(settings: Settings) -> Iterator[Finding]:
    """Tried in a separate process, as a worker does when it starts."""
    mode = settings.workers.cage
    if mode == "off":
        text = "pictures are decoded without a cage: a decoder that a picture takes over has this user's rights"
        yield warning(text, "set [workers] cage to best or require")
        return
    posture = _tried()
    missing = (*posture.problems, *posture.absent)
    if not missing:
        yield well(f"every picture is decoded in a cage: {in_words(posture)}")
        return
    text = f"{'; '.join(missing)}; in force: {in_words(posture)}"
    if mode == "require":
        yield wrong(f"no worker starts, since [workers] cage is require: {text}", _advice(posture))
    else:
        yield warning(text, _advice(posture))


def _advice(posture: Posture) -> str:
    parts = [] if posture.seccomp else [FOR_SECCOMP]
    parts += [] if posture.landlock_abi else [FOR_LANDLOCK]
    return "; ".join(parts) or "report this"


def _tried() -> Posture:
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ran = subprocess.run(  # noqa: S603, our own script
        [sys.executable, str(CAGING)], capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environ, check=False
    )
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or [f"status {ran.returncode}"])[-1]
        return Posture("best", 0, seccomp=False, limits=False, problems=(f"the cage can't be built: {last}",))
    return Posture(**json.loads(ran.stdout))
