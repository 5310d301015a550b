"""Reads while all workers encode: latencies at 100 requests a second, beside a bare handler next to as many encoders.

`./run bench reads beside-encoders`: an open loop, so that a late answer delays no request. The bare handler is asked
beside encoders at nice 10, as the service's render workers are, and beside some that only get idle time (SCHED_IDLE):
what that brings for latencies, and what it costs in pictures. `stolen_ms`: how long a virtual machine's host kept its
processors from running, all together: then nothing on this machine answers. Settings of workers are taken from the
environment: IMGSVC_WORKERS_LARGE_PAGES=false.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fixtures import make
from tests.bench.reading.answers import TICK, Subject, answers, bare
from tests.bench.reading.load import Read, open_loop
from tests.support.memory import memory
from tests.support.server_process import ROOT, ServerProcess, bearer, until

PER_SECOND, SECONDS, ROUNDS, NICENESS = 100, 8, 3, 10
JOBS, SIDES, BEGIN_SECONDS = 60, (4000, 3000), 1.5  # more than the workers render in a round; pixels; for an encoder
REAL = "its latencies are measured"
ENCODE = """
import os, sys, time
from io import BytesIO
from PIL import Image
os.nice(int(sys.argv[2]))
if sys.argv[3] == "idle":
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
image = Image.open(sys.argv[1])
image.load()
while True:
    image.save(BytesIO(), "WEBP", quality=85, method=2)
    print(flush=True)
"""


@contextmanager
def encoders(count: int, photo: Path, policy: str) -> Iterator[list[int]]:
    """Processes that encode one picture again and again; the list grows by one for each picture."""
    made: list[int] = []
    command = [sys.executable, "-c", ENCODE, str(photo), str(NICENESS), policy]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) for _ in range(count)]

    def count_pictures(process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        made.extend(1 for _ in process.stdout)

    threads = [threading.Thread(target=count_pictures, args=[process]) for process in running]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        for process in running:
            process.kill()
            process.wait()
        for thread in threads:
            thread.join()


@contextmanager
def encoding(server: ServerProcess, photo: bytes, count: int) -> Iterator[None]:
    """All workers encode: so many jobs wait that uploading and previews are over before reads are measured."""
    jobs = [server.upload(photo).json()["job_id"] for _ in range(count)]
    until(lambda: "thumbnail" in server.job(jobs[-1])["ready"], 60)
    yield
    left = counts(server)["processing"]  # those that wait for their render, too
    assert left >= len(os.sched_getaffinity(0)), (
        f"{count} jobs were not enough: at the end the workers had nothing to do (--jobs)"
    )
    for job in jobs:
        server.http.delete(f"{server.url}/api/v1/images/{server.job(job)['image_id']}", headers=bearer())


@dataclass(slots=True)
class Found:
    """Of one subject, in all rounds."""

    milliseconds: list[float] = field(default_factory=list)  # of each read
    pictures: int = 0  # that the encoders made meanwhile
    stolen_ms: float = 0

    def add(self, url: str, reads: list[Read], seconds: int, pictures: Callable[[], int]) -> None:
        """Ask for these reads for so many seconds."""
        made, stolen = pictures(), stolen_ms()
        self.milliseconds += asyncio.run(open_loop(url, reads, PER_SECOND, seconds))
        self.pictures += pictures() - made
        self.stolen_ms += stolen_ms() - stolen

    def figure(self, name: str, seconds: int) -> dict[str, object]:
        found = sorted(self.milliseconds)
        at = {f"p{part}": round(found[int(len(found) * part / 100)], 2) for part in (50, 99)}
        rate = round(self.pictures / seconds, 2)
        worst, stolen = round(found[-1], 2), round(self.stolen_ms)
        return {"what": name, **at, "worst": worst, "pictures_per_second": rate, "stolen_ms": stolen}


def stolen_ms() -> float:
    """Since the start of this machine (proc(5), the eighth figure of `cpu`)."""
    return 1000 * int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / TICK


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench reads beside-encoders", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each figure")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of a round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--jobs", type=int, default=JOBS, help="that wait at the beginning of a round")
    return parser.parse_args()


def main() -> None:
    given, workers = arguments(), len(os.sched_getaffinity(0))
    photo = make.jpeg(*SIDES)
    environment = {name: value for name, value in os.environ.items() if name.startswith("IMGSVC_WORKERS_")}
    # Each upload is rendered: the same photo would be reused.
    environment |= {"LOG_LEVEL": "ERROR", "IMGSVC_WORKERS_COUNT": str(workers), "IMGSVC_IMAGES_REUSE": "false"}
    with (
        tempfile.TemporaryDirectory(dir=memory()) as name,
        ServerProcess(Path(name), real=REAL, **environment) as server,
    ):
        file = Path(name) / "photo.jpg"
        file.write_bytes(photo)
        receipt = server.upload(make.jpeg()).json()
        server.job_ended(receipt["job_id"])
        image = f"/api/v1/images/{receipt['image_id']}"
        reads = [Read("info", image), Read("direct", f"{image}/direct?size=thumbnail")]
        with bare(Path(name), asyncio.run(answers(server, reads)), "hypercorn") as other:
            found = measured(server, other, reads, file, given)
        for what, one in found.items():
            line = one.figure(what, given.seconds * given.rounds)
            print(json.dumps(line) if given.json else line, flush=True)


def measured(
    server: ServerProcess, other: Subject, reads: list[Read], photo: Path, given: argparse.Namespace
) -> dict[str, Found]:
    """{what: found}, in turn."""
    workers, beside = len(os.sched_getaffinity(0)), [Read(read.name, f"/{n}") for n, read in enumerate(reads)]
    policies = {"bare, nice 10": "other", "bare, SCHED_IDLE": "idle"}
    found = {what: Found() for what in ("service", *policies)}
    for _ in range(given.rounds):
        with encoding(server, photo.read_bytes(), given.jobs):
            found["service"].add(server.url, reads, given.seconds, lambda: counts(server)["completed"])
        for what, policy in policies.items():
            with encoders(workers, photo, policy) as made:
                time.sleep(BEGIN_SECONDS)
                found[what].add(other.url, beside, given.seconds, lambda: len(made))
    return found


def counts(server: ServerProcess) -> dict[str, int]:
    """{status: number of jobs}."""
    found: dict[str, int] = server.http.get(f"{server.url}/api/v1/health/stats").json()["status_breakdown"]
    return found


if __name__ == "__main__":
    main()
