"""Wheel and sdist."""

import os
import subprocess
import sys
from pathlib import Path

from release import Refused


def build(source: Path, folder: Path, seconds: int, *targets: str) -> list[Path]:
    """Build `targets` (all: wheel and sdist) of the project in `source` into `folder`, with the build backend of .venv.

    The same source and `seconds` give the same bytes.
    """
    chosen = [word for target in targets for word in ("-t", target)]
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *chosen, "-d", str(folder)],
        cwd=source,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(seconds)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Refused(f"The packages could not be built: {(done.stderr or done.stdout).strip()}")
    return sorted(folder.iterdir())
