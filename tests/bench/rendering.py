"""`./run bench`: what the service adds to the bare pipeline, measured side by side in one run.

Ratios travel from machine to machine, milliseconds don't. Nothing else should run meanwhile.
"""

import argparse
import asyncio
import io
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import httpx
from PIL import Image
from rich.console import Console
from rich.table import Table

from fixtures import make
from imgsvc.access.tokens import Tokens
from imgsvc.imaging.recipe import Recipe
from imgsvc.settings import Settings
from tests.support.rendered_paths import render
from tests.support.server_process import SECRET, ServerProcess

IMAGES = 40
AT_ONCE = 30
ROUNDS = 3
LANES = len(os.sched_getaffinity(0))
# One photo is sent again and again: each upload is to be rendered.
SETTINGS = {"IMGSVC_WORKERS_COUNT": str(LANES), "IMGSVC_IMAGES_REUSE": "false"}
console = Console()


def bare_job(source: str, folder: str, recipe: str) -> None:
    target = Path(folder) / str(os.getpid())
    target.mkdir(exist_ok=True)
    render(Path(source), "image/jpeg", Recipe.from_json(recipe), target)


def bare(source: Path) -> float:
    """Images per second of the pipeline alone, in as many processes as the service has render lanes."""
    recipe = Settings().images.recipe.to_json()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(LANES, get_context("spawn")) as pool:
        list(pool.map(bare_job, [str(source)] * LANES * 2, [folder] * LANES * 2, [recipe] * LANES * 2))
        began = time.perf_counter()
        list(pool.map(bare_job, [str(source)] * IMAGES, [folder] * IMAGES, [recipe] * IMAGES))
        return IMAGES / (time.perf_counter() - began)


class Client:
    def __init__(self, server: ServerProcess) -> None:
        self._http = httpx.AsyncClient(base_url=server.url, timeout=120, limits=httpx.Limits(max_connections=64))
        self._headers = {
            "Authorization": f"Bearer {Tokens(SECRET, 'HS256').issue('bench')}",
            "Content-Type": "image/jpeg",
        }

    async def upload(self, data: bytes) -> tuple[str, float]:
        """The job's id, and how long its 202 took."""
        began = time.perf_counter()
        answer = await self._http.post("/api/v1/images/upload?bucket=b", content=data, headers=self._headers)
        assert answer.status_code == 202, answer.text
        return answer.json()["job_id"], time.perf_counter() - began

    async def wait(self, job_id: str, *, thumbnail: bool = False) -> float:
        """When (time.perf_counter) the job was seen completed, or its thumbnail ready."""
        while True:
            job = (await self._http.get(f"/api/v1/images/jobs/{job_id}")).json()
            assert job["status"] != "failed", job
            if job["status"] == "completed" or (thumbnail and "thumbnail" in job["ready"]):
                return time.perf_counter()
            await asyncio.sleep(0.02 if thumbnail else 0.1)

    async def close(self) -> None:
        await self._http.aclose()


async def throughput(server: ServerProcess, data: bytes) -> tuple[float, list[float]]:
    """Images per second from the first byte to the last job completed, and the times to accept."""
    client = Client(server)
    began = time.perf_counter()
    uploads = await asyncio.gather(*(client.upload(data) for _ in range(IMAGES)))
    ended = max([await client.wait(job_id) for job_id, _ in uploads])
    await client.close()
    return IMAGES / (ended - began), [seconds for _, seconds in uploads]


async def last_thumbnail(server: ServerProcess, data: bytes) -> tuple[float, float]:
    """Seconds from the first byte of 30 uploads at once to the last 202, and to the last thumbnail."""
    client = Client(server)
    began = time.perf_counter()
    uploads = await asyncio.gather(*(client.upload(data) for _ in range(AT_ONCE)))
    accepted = time.perf_counter()
    ready = [await client.wait(job_id, thumbnail=True) for job_id, _ in uploads]  # one poll at a time: it costs too
    for job_id, _ in uploads:
        await client.wait(job_id)
    await client.close()
    return accepted - began, max(ready) - began


class Memory:
    """The peak of the process tree's memory: private and shared pages counted once (PSS), in bytes."""

    def __init__(self, server: ServerProcess) -> None:
        self.peak = 0
        self._server = server
        self._stop = threading.Event()

    @contextmanager
    def watched(self) -> Iterator["Memory"]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):  # reading it costs the processes that are measured
            pids = [self._server.process.pid, *self._server.worker_processes()]
            self.peak = max(self.peak, sum(map(proportional_bytes, pids)))


def proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def efforts(source: Path) -> None:
    """What WebP effort costs and saves, for the two largest variants."""
    image = Image.open(source).convert("RGB")
    image.thumbnail((4096, 4096))
    table = Table("size", "effort", "time, ratio to effort 4", "bytes, ratio to effort 4")
    for side in (4096, 1200):
        sized = image.copy()
        sized.thumbnail((side, side))
        results = {effort: encode_once(sized, effort) for effort in (0, 2, 4, 6)}
        for effort, (seconds, size) in results.items():
            table.add_row(str(side), str(effort), f"{seconds / results[4][0]:.2f}", f"{size / results[4][1]:.3f}")
    console.print(table)


def encode_once(image: Image.Image, effort: int) -> tuple[float, int]:
    buffer, began = io.BytesIO(), time.perf_counter()
    image.save(buffer, "WEBP", quality=85, method=effort)
    return time.perf_counter() - began, buffer.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, help="a JPEG to measure with; without it a drawn one of 6 MP")
    given = parser.parse_args().photo
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "photo.jpg"
        source.write_bytes(given.read_bytes() if given else make.jpeg(2725, 2225))
        data = source.read_bytes()
        console.print(f"{source.stat().st_size / 1e6:.2f} MB, {Image.open(source).size}, {LANES} render lanes")
        rates: list[tuple[float, float]] = []
        accepts: list[float] = []
        with ServerProcess(folder, **SETTINGS) as server, Memory(server).watched() as memory:
            asyncio.run(throughput(server, data))
            for _ in range(ROUNDS):
                rate, times = asyncio.run(throughput(server, data))
                rates.append((bare(source), rate))
                accepts += times
            accepted, thumbnails = asyncio.run(last_thumbnail(server, data))
        table = Table("images per second", "bare pool", "service", "ratio", title=f"{IMAGES} uploads")
        for plain, served in rates:
            table.add_row("", f"{plain:.2f}", f"{served:.2f}", f"{served / plain:.3f}")
        console.print(table)
        median = statistics.median(served / plain for plain, served in rates)
        console.print(f"median ratio service / bare pool: {median:.3f}")
        console.print(f"accept, {IMAGES} at once: median {statistics.median(accepts) * 1000:.0f} ms")
        console.print(f"{AT_ONCE} at once: last 202 after {accepted:.2f} s, last thumbnail after {thumbnails:.2f} s")
        console.print(f"peak memory of the process tree: {memory.peak / (1 << 20):.0f} MB")
        efforts(source)


if __name__ == "__main__":
    main()
