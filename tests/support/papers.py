"""The examples of the papers, and a folder in which they can be typed as a reader does."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from docs.pages import ROOT, Block, pages
from fixtures import make
from tests.support import forking
from tests.support.server_process import ServerProcess
from tests.support.speed import seconds

PAGES = list(pages())
TOUR_HOST = "http://127.0.0.1:8000"
TOUR_SECONDS = seconds(120)  # some ten processes are started one after another: two seconds on a quiet machine
MARK = "----- next block -----"
# What `./run` does here, in a folder that holds no clone.
RUN = f"""\
#!/bin/sh
[ "$1" = imgsvc ] && shift
exec {sys.executable} -IS {ROOT}/tests/support/forked_run.py ADDRESS "$@"
"""


def make_clone(folder: Path) -> Path:
    """What the examples expect: `./run`, the environment, and a photo."""
    (folder / "run").write_text(RUN.replace("ADDRESS", forking.shared().address))
    (folder / "run").chmod(0o755)
    (folder / ".venv").symlink_to(sys.prefix)
    (folder / "photo.jpg").write_bytes(make.jpeg())
    return folder


def marked(path: str, *, kind: str = "") -> list[Block]:
    """The blocks of a page that are to be run, each followed by what it gives."""
    page = next(one for one in PAGES if str(one.path) == path)
    found = [
        block
        for block in page.blocks
        if (block.mark == "gives" and not block.kind) or (block.mark == "run" and block.kind == kind)
    ]
    assert found
    return found


def runs(path: str, kind: str) -> list[str]:
    """The texts of the blocks of this kind alone."""
    return [block.text for block in marked(path, kind=kind) if block.mark == "run"]


def shell(script: str, folder: Path, environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """In one shell, as a reader types it; it ends with the first command that fails."""
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail\n{script}"],
        cwd=folder,
        env={**environ, "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TOUR_SECONDS,
    )


def succeeds(script: str, folder: Path, environ: Mapping[str, str]) -> str:
    """What it prints."""
    done = shell(script, folder, environ)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_blocks(server: ServerProcess, folder: Path, blocks: list[Block]) -> None:
    """All `run` blocks in one shell; what each prints is what the page says it gives."""
    texts = [block.text for block in blocks if block.mark == "run"]
    script = f"echo '{MARK}'\n".join(texts).replace(TOUR_HOST, server.url)
    printed = succeeds(script, folder, server.environ).replace(server.url, TOUR_HOST).split(f"{MARK}\n")
    for index, block in enumerate(blocks):
        if block.mark == "gives":
            number = sum(one.mark == "run" for one in blocks[:index]) - 1
            assert like(printed[number].strip(), block.text.strip()), (block.text, printed[number])


def like(printed: str, shown: str) -> bool:
    """Whether that was printed which a page shows, where "…" stands for anything."""
    return bool(re.fullmatch(".*".join(re.escape(part) for part in shown.split("…")), printed, re.DOTALL))
