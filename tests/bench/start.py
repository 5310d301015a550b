"""`./run bench start`: from the command to the first 200, beside a process that only imports the libraries.

In turn, medians. Seconds of the clock, and processor seconds of the service's own process up to then (its workers not
counted): the latter say something on a busy machine too. `--json` prints the figures for a program.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

ROOT = Path(__file__).parents[2]
LIBRARIES = "starlette, hypercorn, uvloop, pydantic, structlog, joserfc, aiosqlite, python_multipart"
# The parts of them that a service can't do without.
PARTS = (
    "starlette.applications, starlette.routing, starlette.responses, hypercorn.asyncio, hypercorn.config, uvloop, "
    "pydantic, structlog, joserfc.jwt, joserfc.jwk, aiosqlite, python_multipart"
)
TICKS = os.sysconf("SC_CLK_TCK")
Spent = tuple[float, float]  # seconds of the clock, processor seconds


def imports(names: str) -> Spent:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {names}"], check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, spent


def service(folder: Path) -> Spent:
    """In a folder that has had a start: the first one writes the secrets and makes the database."""
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "DATABASE_PATH": str(folder / "data" / "imgsvc.db"),
        "STORAGE_PATH": str(folder / "storage"),
        "LOG_LEVEL": "WARNING",
    }
    began = time.perf_counter()
    command = [sys.executable, "-m", "imgsvc", "serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        url = process.stdout.readline().split()[-1]
        with urlopen(f"{url}/api/v1/health/live") as answer:
            assert answer.status == 200
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return time.perf_counter() - began, (int(fields[11]) + int(fields[12])) / TICKS
    finally:
        process.terminate()
        process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser("./run bench start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[Spent]] = {"libraries": [], "their parts": [], "first 200": []}
    with tempfile.TemporaryDirectory(prefix="imgsvc-start-") as name:
        service(Path(name))
        for _ in range(options.rounds):
            found["libraries"].append(imports(LIBRARIES))
            found["their parts"].append(imports(PARTS))
            found["first 200"].append(service(Path(name)))
    medians = {
        name: [statistics.median(column) for column in zip(*rounds, strict=True)] for name, rounds in found.items()
    }
    if options.json:
        print(json.dumps(medians))
        return
    for name, (clock, processor) in medians.items():
        ratios = " ".join(
            f"{mine / bare:5.2f}" for mine, bare in zip((clock, processor), medians["their parts"], strict=True)
        )
        print(f"{name:12} {clock:6.3f} s  {processor:6.3f} processor s  ({ratios} x their parts)")


if __name__ == "__main__":
    main()
