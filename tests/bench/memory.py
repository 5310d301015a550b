"""`./run bench memory`: the memory of service and workers while they are busy, and a minute later.

The sum of PSS (proc(5)) of all processes: idle; its peak while 100 photos of 15 MP go through two workers and small
variants are read until the memory of reads is full; and a minute after that. The photos differ by a comment. What is
read belongs to uploads of one photo, which reuse its variants. Settings of workers are taken from the environment.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import httpx

from fixtures import make
from tests.support.memory import memory
from tests.support.server_process import ServerProcess, children, until

T = TypeVar("T")
IMAGES = "/api/v1/images"
SIDES, SMALL_SIDES = (4474, 3354), (1200, 900)  # 15 MP; of the photo whose variants fill the memory
BUSY_MB, LATER_TIMES = 350, 1.2  # beside cache_mb
SETTLE_SECONDS, LATER_SECONDS, SAMPLE_SECONDS = 5, 60, 0.1
FULL, MEGABYTE = 0.95, 1 << 20
REAL = "its memory is measured"


@dataclass(frozen=True, slots=True)
class Sample:
    """PSS in MB: of the service, of its workers, and of the processes of the pictures under way."""

    service: float
    workers: float
    pictures: float

    @property
    def total(self) -> float:
        return self.service + self.workers + self.pictures


def sampled(pid: int) -> Sample:
    workers = children(pid)
    pictures = [child for worker in workers for child in children(worker)]
    return Sample(_pss_mb(pid), sum(map(_pss_mb, workers)), sum(map(_pss_mb, pictures)))


def rss_mb(pid: int) -> float:
    """The sum of RSS in MB of the workers and the processes of pictures, which share some of it."""
    workers = children(pid)
    return sum(_of(one, "status", "VmRSS:") for worker in workers for one in (worker, *children(worker)))


def _pss_mb(pid: int) -> float:
    return _of(pid, "smaps_rollup", "Pss:")


def _of(pid: int, file: str, name: str) -> float:
    """In MB; 0 if the process has ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(name)), 0.0)


@contextmanager
def sampling(pid: int, look: Callable[[int], T]) -> Iterator[list[T]]:
    """What `look` finds of the service all along."""
    found: list[T] = []
    over = threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_SECONDS):
            found.append(look(pid))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def with_comment(photo: bytes, number: int) -> bytes:
    """The same picture as another file: a JPEG comment behind its first marker."""
    text = f"{number:08}".encode()
    return photo[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + photo[2:]


def held_mb(server: ServerProcess) -> float:
    """What the memory of reads holds."""
    text = server.http.get(f"{server.url}/metrics", headers=server.operator).text
    line = next(line for line in text.splitlines() if line.startswith("read_memory_bytes "))
    return float(line.split()[-1]) / MEGABYTE


def fill_memory(server: ServerProcess, photo: bytes, cache_mb: int) -> int:
    """Upload the small photo again and again and read its variants, until the memory is full; returns how often."""
    count = 0
    while held_mb(server) < FULL * cache_mb:
        receipts = [server.upload(photo).json() for _ in range(50)]
        for receipt in receipts:
            assert server.job_ended(receipt["job_id"])["status"] == "completed"
            read(server.http, server.url, receipt["image_id"])
        count += len(receipts)
    return count


def read(client: httpx.Client, url: str, image_id: str) -> None:
    page = client.get(f"{url}{IMAGES}/{image_id}/all").json()
    for name, variant in page["metadata"]["variants"].items():
        if variant["size_bytes"] <= 64 * 1024:
            assert client.get(f"{url}{IMAGES}/{image_id}/direct?size={name}").status_code == 200


def measured(server: ServerProcess, given: argparse.Namespace) -> dict[str, float]:
    photo, small = make.jpeg(*SIDES), make.jpeg(*SMALL_SIDES)
    server.job_ended(server.upload(small).json()["job_id"])
    time.sleep(SETTLE_SECONDS)
    idle = sampled(server.service_pid).total
    with sampling(server.service_pid, sampled) as samples:
        jobs = [server.upload(with_comment(photo, number)).json() for number in range(given.photos)]
        reused = fill_memory(server, small, given.cache_mb)
        for receipt in jobs:
            until(lambda receipt=receipt: server.job(receipt["job_id"])["status"] == "completed", 900)  # type: ignore[misc]
            read(server.http, server.url, receipt["image_id"])
        held = held_mb(server)
    time.sleep(given.later)
    later, most = sampled(server.service_pid).total, max(samples, key=lambda sample: sample.total)
    return {
        "idle_mb": round(idle, 1),
        "busy_mb": round(most.total, 1),
        **{f"busy_{part}_mb": round(size, 1) for part, size in asdict(most).items()},
        "busy_limit_mb": BUSY_MB + given.cache_mb,
        "later_mb": round(later, 1),
        "later_limit_mb": round(LATER_TIMES * idle + given.cache_mb, 1),
        "held_mb": round(held, 1),
        "small_images": reused,
    }


def main() -> None:
    parser = argparse.ArgumentParser("./run bench memory", description=__doc__)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--cache-mb", type=int, default=64, help="[server] cache_mb")
    parser.add_argument("--later", type=int, default=LATER_SECONDS, help="seconds from the end to the last figure")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    environment = {
        **{name: value for name, value in os.environ.items() if name.startswith("IMGSVC_WORKERS_")},
        "LOG_LEVEL": "ERROR",
        "IMGSVC_WORKERS_COUNT": "2",
        "IMGSVC_SERVER_CACHE_MB": str(given.cache_mb),
    }
    with (
        tempfile.TemporaryDirectory(dir=memory()) as name,
        ServerProcess(Path(name), real=REAL, **environment) as server,
    ):
        found = measured(server, given)
    if given.json:
        print(json.dumps(found))
        return
    print("idle          {idle_mb:7.1f} MB".format(**found))
    print(
        "busy          {busy_mb:7.1f} MB (at most {busy_limit_mb:.1f}): service {busy_service_mb:.1f}, workers "
        "{busy_workers_mb:.1f}, processes of pictures {busy_pictures_mb:.1f}".format(**found)
    )
    print("a while later {later_mb:7.1f} MB (at most {later_limit_mb:.1f})".format(**found))
    print("the memory of reads held {held_mb:.1f} MB".format(**found), file=sys.stderr)


if __name__ == "__main__":
    main()
