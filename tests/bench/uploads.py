"""`./run bench uploads`: from an upload to its variants, beside bare processes that do the same work and syncs.

Each figure compares the service with what the same run measures without it: ratios travel from machine to machine,
milliseconds don't, and nothing else should run meanwhile. The client's own time does not count: drain rates and
thumbnails begin with the last 202, and processor seconds are those of the service's processes. Settings of workers are
taken from the environment: IMGSVC_WORKERS_LARGE_PAGES=false.
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from fixtures import make
from imgsvc.jobs.lanes.messages import Rendered
from imgsvc.jobs.lanes.process import ProcessLane
from imgsvc.settings import Settings
from tests.bench.reading.beside_encoders import encoders
from tests.bench.uploading import bare_work
from tests.bench.uploading.bare_work import Bare, bare
from tests.bench.uploading.service import Uploader, Watched, upload_at_once
from tests.support.render_task import render_task
from tests.support.server_process import ROOT, ServerProcess

LANES = len(os.sched_getaffinity(0))
IMAGES, SINGLE, AT_ONCE, SHARED, USERS = 30, 20, 50, 200, 10
FIRST = 2 * LANES  # images of a round that are not counted
RECEIPTS = 25  # pairs of each order
REST_SECONDS = 0.2  # before each of these uploads
# One photo is sent again and again: each upload is to be rendered.
SETTINGS = {"IMGSVC_WORKERS_COUNT": str(LANES), "IMGSVC_IMAGES_REUSE": "false"}
PARTS = ("drain", "single", "at-once", "receipt", "commits")


@dataclass(frozen=True, slots=True)
class Figure:
    """What the service took, and what the bare processes took, in `unit`; `goal` is for service / bare."""

    name: str
    unit: str
    service: float
    bare: float
    goal: str

    @property
    def ratio(self) -> float:
        return self.service / self.bare


class Bench:
    def __init__(self, server: ServerProcess, source: Path, rounds: int, images: int) -> None:
        self._watched = Watched(server)
        self._folder = server.folder
        self._source = source
        self._data = source.read_bytes()
        self._recipe = Settings().images.recipe
        self._rounds = rounds
        self._images = images

    def drain(self) -> Iterator[Figure]:
        """Images per second once all are accepted, and processor seconds of an image from its first byte."""
        with self._bare(LANES) as pool:
            rounds = [(self._drained(), self._bare_drained(pool)) for _ in range(self._rounds)]
        (rates, spent), (bare_rates, bare_spent) = (zip(*side, strict=True) for side in zip(*rounds, strict=True))
        yield Figure("drain rate", "images/s", statistics.median(rates), statistics.median(bare_rates), ">= 0.95")
        yield Figure("processor time of an image", "ms", min(spent) * 1000, min(bare_spent) * 1000, "<= 1.05")

    def _drained(self) -> tuple[float, float]:
        """Some images go first: the host of a virtual machine takes back what is free while the other side works."""
        watched = self._watched
        upload_at_once(watched.url, self._data, FIRST, USERS)
        watched.all_done()
        before, done = watched.processor_seconds, watched.completed
        upload_at_once(watched.url, self._data, self._images, USERS)
        began, early = time.perf_counter(), watched.completed - done
        ended = watched.all_done()
        rate = (self._images - early) / (ended - began)
        return rate, (watched.processor_seconds - before) / self._images

    def _bare_drained(self, pool: Bare) -> tuple[float, float]:
        bare_work.throughput(pool, FIRST)
        return bare_work.throughput(pool, self._images)

    def single(self) -> Iterator[Figure]:
        """One upload at a time, while all lanes are idle: medians."""
        largest, *others = (variant.name for variant in self._recipe.variants)
        uploader, rows, plain = Uploader(self._watched.url, self._data), [], []
        with self._bare(1) as pool:
            for _ in range(SINGLE):
                uploader.upload()
                began = time.perf_counter()
                rows.append((self._watched.all_previewed(0.001) - began, self._watched.all_done(0.001) - began))
                preview = pool.call(bare_work.durable_preview).result()
                parts = [pool.call(bare_work.rendered, names).result()[0] for names in ([largest], others)]
                plain.append((preview, max(parts)))
        uploader.close()
        (thumbnail, variants), (preview, part) = (
            map(statistics.median, zip(*side, strict=True)) for side in (rows, plain)
        )
        yield Figure("thumbnail of one upload", "ms", thumbnail * 1000, preview * 1000, "<= 2")
        yield Figure("all variants of one upload", "ms", variants * 1000, part * 1000, "<= 1.2")

    def at_once(self) -> Iterator[Figure]:
        """The last thumbnail of 50 uploads, from the last 202, and what a process for each picture costs of that."""
        rows = []
        with self._bare(1) as pool:
            for _ in range(self._rounds):
                upload_at_once(self._watched.url, self._data, AT_ONCE, USERS)
                began = time.perf_counter()
                thumbnails = self._watched.all_previewed() - began
                self._watched.all_done()
                with encoders(LANES, self._source, "nice"):
                    plain = pool.call(bare_work.previews, AT_ONCE).result()
                    caged = asyncio.run(self._caged_previews())
                rows.append((thumbnails, caged, plain))
        thumbnails, caged, plain = map(statistics.median, zip(*rows, strict=True))
        yield Figure(f"last thumbnail of {AT_ONCE}", "ms", thumbnails * 1000, plain * 1000, "<= 2")
        yield Figure("of that, a process for each picture", "ms", caged * 1000, plain * 1000, "")

    async def _caged_previews(self) -> float:
        """Seconds for as many previews on a lane, without the service."""
        task = replace(render_task(self._folder, self._data, self._recipe), kind="preview")
        lane = ProcessLane("bench", nice=0, jobs_per_process=1000)
        try:
            assert isinstance(await lane.run(task), Rendered)
            began = time.perf_counter()
            for _ in range(AT_ONCE):
                await lane.run(task)
            return time.perf_counter() - began
        finally:
            await lane.close()

    def receipt(self) -> Iterator[Figure]:
        """The 202 for a photo of 0.8 MB, beside a handler that receives and syncs the same: medians, in turn.

        Each begins from rest, as on an idle service, and is as often first. A bare upload right behind another one is a
        third faster, since caches and disk are awake; the service's picture is rendered before its next one.
        """
        photo = make.jpeg(2304, 1728)
        with bare_handler(self._folder) as (url, staging):
            both = [Uploader(self._watched.url, photo), Uploader(url, photo)]
            found: list[list[float]] = [[], []]
            for number in range(2 * RECEIPTS):
                for which in (0, 1) if number % 2 else (1, 0):
                    found[which].append(both[which].upload())
                    self._watched.all_done()
                    while len(list(staging.iterdir())) > 1:  # beside its log
                        time.sleep(0.001)
                    time.sleep(REST_SECONDS)
            for one in both:
                one.close()
        service, plain = (statistics.median(times[2:]) for times in found)
        yield Figure("202 for a photo of 0.8 MB", "ms", service * 1000, plain * 1000, "<= 1.25")

    def commits(self) -> Iterator[Figure]:
        """Transactions of every kind until the last 202 of 200 uploads of ten users, beside one for each upload."""
        before = self._watched.commits
        upload_at_once(self._watched.url, make.jpeg(64, 48), SHARED, USERS)
        yield Figure(f"transactions for {SHARED} uploads at once", "", self._watched.commits - before, SHARED, "< 1")
        self._watched.all_done()

    @contextmanager
    def _bare(self, count: int) -> Iterator[Bare]:
        folder = self._folder / "bare"
        folder.mkdir(exist_ok=True)
        with bare(count, self._source, folder, self._recipe) as pool:
            yield pool


@contextmanager
def bare_handler(folder: Path) -> Iterator[tuple[str, Path]]:
    """The address of a bare handler that runs as long as the context, and the folder of its files."""
    staging = folder / "bare-staging"
    staging.mkdir()
    command = [sys.executable, "-m", "tests.bench.uploading.bare_handler", str(staging)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().split()[-1], staging
        finally:
            process.terminate()


def row(figure: Figure) -> str:
    return (
        f"{figure.name:<40} {figure.service:9.1f} {figure.bare:9.1f} {figure.unit:<9} "
        f"{figure.ratio:6.3f}   {figure.goal}"
    )


def main() -> None:
    parser = argparse.ArgumentParser("./run bench uploads", description=__doc__)
    parser.add_argument("--photo", type=Path, help="a JPEG to measure with; without it a drawn one of 6 MP")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of the drain rate and of uploads at once")
    parser.add_argument("--images", type=int, default=IMAGES, metavar="N", help="in a round of the drain rate")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--json", action="store_true", help="one line of JSON for each figure")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as name:
        source = Path(name) / "photo.jpg"
        source.write_bytes(given.photo.read_bytes() if given.photo else make.jpeg(2725, 2225))
        given_too = {name: value for name, value in os.environ.items() if name.startswith("IMGSVC_WORKERS_")}
        with ServerProcess(Path(name), real="it is measured", **given_too, **SETTINGS) as server:
            bench = Bench(server, source, given.rounds, given.images)
            if not given.json:
                print(f"{'':<40} {'service':>9} {'bare':>9} {'':<9} {'ratio':>6}   goal")
            for part in given.only:
                for figure in getattr(bench, part.replace("-", "_"))():
                    line = json.dumps({**asdict(figure), "ratio": round(figure.ratio, 3)})
                    print(line if given.json else row(figure), flush=True)


if __name__ == "__main__":
    main()
