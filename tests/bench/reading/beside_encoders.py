"""Reads while all workers encode: latencies at 100 requests a second, beside a bare handler next to as many encoders.

`./run bench reads beside-encoders`: an open loop, so that a late answer delays no request. The bare handler is asked
beside encoders at nice 10, as the service's render workers are, and beside some that only get idle time (SCHED_IDLE):
what that brings for latencies, and what it costs in pictures.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fixtures import make
from tests.bench.reading.answers import answers, bare
from tests.bench.reading.load import Read, open_loop
from tests.support.server_process import ROOT, ServerProcess, until

PER_SECOND, SECONDS, ROUNDS, NICENESS = 100, 10, 3, 10
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
def uploading(server: ServerProcess, photo: bytes, waiting: int) -> Iterator[None]:
    """Keep some jobs waiting, so that every worker always has one."""
    over = threading.Event()

    def upload() -> None:
        while not over.wait(0.05):
            if unfinished(server) < waiting:
                server.upload(photo)

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def figure(name: str, found: list[float], pictures_per_second: float) -> dict[str, object]:
    found.sort()
    at = {f"p{part}": round(found[int(len(found) * part / 100)], 2) for part in (50, 99)}
    return {"what": name, **at, "worst": round(found[-1], 2), "pictures_per_second": round(pictures_per_second, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench reads beside-encoders", description=__doc__)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each figure")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of a round")
    given = parser.parse_args()
    workers = len(os.sched_getaffinity(0))
    photo = make.jpeg(3000, 2000)
    with (
        tempfile.TemporaryDirectory() as name,
        ServerProcess(Path(name), LOG_LEVEL="ERROR", IMGSVC_WORKERS_COUNT=str(workers)) as server,
    ):
        file = Path(name) / "photo.jpg"
        file.write_bytes(photo)
        receipt = server.upload(make.jpeg()).json()
        server.job_ended(receipt["job_id"])
        image = f"/api/v1/images/{receipt['image_id']}"
        reads = [Read("info", image), Read("direct", f"{image}/direct?size=thumbnail")]
        sent = asyncio.run(answers(server, reads))
        with bare(Path(name), sent, "hypercorn") as other:
            beside = [Read(read.name, f"/{number}") for number, read in enumerate(reads)]
            found: dict[str, list[float]] = {"service": [], "bare, nice 10": [], "bare, SCHED_IDLE": []}
            pictures = dict.fromkeys(found, 0.0)
            for _ in range(ROUNDS):
                with uploading(server, photo, 3 * workers):
                    time.sleep(2)
                    found["service"] += asyncio.run(open_loop(server.url, reads, PER_SECOND, given.seconds))
                until(lambda: not unfinished(server), 600)
                for what, policy in (("bare, nice 10", "other"), ("bare, SCHED_IDLE", "idle")):
                    with encoders(workers, file, policy) as made:
                        time.sleep(2)
                        before = len(made)
                        found[what] += asyncio.run(open_loop(other.url, beside, PER_SECOND, given.seconds))
                        pictures[what] += (len(made) - before) / given.seconds / ROUNDS
            for what, times in found.items():
                line = figure(what, times, pictures[what])
                print(json.dumps(line) if given.json else line, flush=True)


def unfinished(server: ServerProcess) -> int:
    """The number of jobs that wait or are being worked on."""
    counts = server.http.get(f"{server.url}/api/v1/health/stats").json()["status_breakdown"]
    return int(counts["pending"] + counts["processing"])


if __name__ == "__main__":
    main()
