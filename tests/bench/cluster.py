"""`./run bench cluster`: what one service carries whose pictures are rendered elsewhere, and what a photo costs it.

Scheduler, gateway, service and workers are real processes that speak TLS on loopback, and real bytes travel. The
workers render the photo once, measure how long that takes, and from then on sleep for as long: so this machine's
processors are left to the service, and a few processes stand for many machines. More are added at each step.

Processor time travels from machine to machine better than seconds do: what a process takes for a photo says how many
photos a second one processor carries. Photos a second are what this machine reached while everything shared it.
"""

import argparse
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Thread

from fixtures import make
from tests.bench.uploading.service import Uploader
from tests.support.cluster import Cluster, ClusterService
from tests.support.server_process import until

TICKS = os.sysconf("SC_CLK_TCK")
USERS = 8  # connections that upload
SETTINGS = {
    "IMGSVC_IMAGES_REUSE": "false",
    "IMGSVC_WORKERS_LOCAL_PREVIEW": "false",
    "LOG_LEVEL": "WARNING",
}


@dataclass(frozen=True, slots=True)
class Step:
    """What was measured with so many places: photos a second, MB a second, and ms of processor time for each photo."""

    places: int
    photos_per_second: float
    megabytes_per_second: float
    service_ms: float
    gateway_ms: float
    scheduler_ms: float
    dask_worker_ms: float  # of the workers' own processes, which fetch and put

    @property
    def ceiling(self) -> float:
        """Photos a second at which the service's own process has filled one processor."""
        return 1000 / self.service_ms


def spent(pid: int) -> float:
    """Processor seconds of a process itself."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:13])) / TICKS


class Bench:
    def __init__(self, cluster: Cluster, far: ClusterService, photo: bytes) -> None:
        self._cluster, self._far, self._photo = cluster, far, photo
        self._workers: list[int] = []
        self._places = 0

    def steps(self, sizes: list[int], photos: int) -> Iterator[Step]:
        for places in sizes:
            self._add(places - self._places)
            yield self._measured(photos)

    def _add(self, places: int) -> None:
        worker = self._cluster.start_prepared(places, seconds=-1).joined()
        self._workers.append(worker.process.pid)
        self._places += places
        until(lambda: sum(one["threads"] for one in self._far.machines() if one["used"]) == self._places)
        self._upload(2 * len(self._workers))  # each of them renders once
        self._done()

    def _measured(self, photos: int) -> Step:
        pids = {
            "service": [self._far.service_pid],
            "gateway": [self._far.gateway()],
            "scheduler": [self._cluster.scheduler.pid],
            "dask_worker": self._workers,
        }
        before = {name: sum(map(spent, group)) for name, group in pids.items()}
        bytes_before, began = self._bytes(), time.monotonic()
        self._upload(photos)
        self._done()
        seconds = time.monotonic() - began
        cost = {f"{name}_ms": 1000 * (sum(map(spent, group)) - before[name]) / photos for name, group in pids.items()}
        time.sleep(1.1)  # the figures of the dashboard may be a second old
        moved = self._bytes() - bytes_before + photos * len(self._photo)
        return Step(self._places, photos / seconds, moved / seconds / 1e6, **cost)

    def _bytes(self) -> int:
        shown = self._far.data()["cluster"]
        return int(shown["sent_bytes"] + shown["received_bytes"])

    def _upload(self, photos: int) -> None:
        def send(number: int) -> None:
            uploader = Uploader(self._far.url, self._photo, f"user{number}")
            for _ in range(photos * number // USERS, photos * (number + 1) // USERS):
                uploader.upload()
            uploader.close()

        threads = [Thread(target=send, args=(number,)) for number in range(USERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _done(self) -> None:
        with closing(sqlite3.connect(f"file:{self._far.places.database}?mode=ro", uri=True)) as db:
            statement = "SELECT count(*) FROM processing_jobs WHERE status <> 'completed'"
            while db.execute(statement).fetchone()[0]:
                time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, help="default: one of 6 megapixels, made up")
    parser.add_argument("--photos", type=int, default=100, help="uploads at each step")
    parser.add_argument("--places", type=int, nargs="+", default=[4, 16, 64, 256], help="pictures at a time")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    photo = given.photo.read_bytes() if given.photo else make.jpeg(3000, 2000)
    with (
        tempfile.TemporaryDirectory(prefix="imgsvc-bench-") as name,
        Cluster(Path(name)) as cluster,
        cluster.made_service(Path(name) / "service", **SETTINGS) as far,
    ):
        found = list(Bench(cluster, far, photo).steps(given.places, given.photos))
        far.leave_unchecked("only its speed is looked at")
    print(json.dumps([asdict(one) for one in found]) if given.json else _table(found, len(photo)))


def _table(steps: list[Step], size: int) -> str:
    lines = [f"photo of {size / 1e6:.1f} MB; ms of processor time for each", ""]
    head = ("places", "photos/s", "MB/s", "service", "gateway", "scheduler", "workers", "ceiling/s")
    lines.append("".join(f"{word:>11}" for word in head))
    for one in steps:
        figures = (one.photos_per_second, one.megabytes_per_second, one.service_ms, one.gateway_ms, one.scheduler_ms)
        row = [f"{one.places:>11}", *(f"{figure:>11.1f}" for figure in (*figures, one.dask_worker_ms, one.ceiling))]
        lines.append("".join(row))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
