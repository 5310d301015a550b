"""How reads grow with the table: a service with a thousand jobs beside one with a million, each with little memory.

`./run bench reads growth [--jobs N]`: hits and misses apart. The reads of a round go through a working set that takes
more than ten times the memory that the service has for it; thumbnails are files of the working set alone. `--folder`
keeps the tables for the next time: a million jobs take a minute to make.
"""

import argparse
import json
import random
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from tests.support.many_jobs import BUCKET, VARIANTS, fill
from tests.support.memory import memory
from tests.support.server_process import ServerProcess

FEW, ROUNDS, READS = 1000, 5, 150
FEW_SET, MANY_SET = 900, 9000  # images that are read
CACHE_MB = 1.0  # the rows of the smaller set alone take eleven times that
SETTLE_SECONDS = 5  # waiting jobs of the tables have no uploads and end as failed
IMAGES = "/api/v1/images"
SIZE = "thumbnail"
REAL = "its latencies are measured"


def images_of(folder: Path, most: int) -> list[tuple[str, str]]:
    """(image id, job id) of completed images, at random."""
    with closing(sqlite3.connect(folder / "data" / "imgsvc.db")) as db:
        found = db.execute(
            "SELECT image_id, job_id FROM processing_jobs WHERE status = 'completed' AND deleted_at IS NULL"
        ).fetchall()
    random.Random(7).shuffle(found)
    return [(str(image), str(job)) for image, job in found[:most]]


def store_thumbnails(folder: Path, images: list[tuple[str, str]]) -> None:
    """Give the images the files that their rows name."""
    kept = folder / "storage" / BUCKET / f"processed/{SIZE}"
    kept.mkdir(parents=True, exist_ok=True)
    for image, _ in images:
        (kept / f"{image}_{SIZE}.webp").write_bytes(bytes(VARIANTS[SIZE][1]))


def paths_of(images: list[tuple[str, str]]) -> dict[str, list[str]]:
    return {
        "info": [f"{IMAGES}/{image}" for image, _ in images],
        "all": [f"{IMAGES}/{image}/all" for image, _ in images],
        "job": [f"{IMAGES}/jobs/{job}" for _, job in images],
        "batch of 10": [
            f"{IMAGES}/batch?image_ids={','.join(image for image, _ in images[n : n + 10])}"
            for n in range(0, len(images) - 9, 10)
        ],
        "direct 4 KB": [f"{IMAGES}/{image}/direct?size={SIZE}" for image, _ in images],
        "/storage 4 KB": [f"/storage/{BUCKET}/processed/{SIZE}/{image}_{SIZE}.webp" for image, _ in images],
    }


def asked_for(client: httpx.Client, server: ServerProcess, paths: list[str]) -> tuple[float, float]:
    """One read after the other: (milliseconds until the answer, the median; processor microseconds for each read)."""
    taken, before = [], processor_ns(server.service_pid)
    for path in paths:
        began = time.perf_counter()
        assert client.get(server.url + path).status_code == 200
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken), (processor_ns(server.service_pid) - before) / 1000 / len(paths)


def processor_ns(pid: int) -> int:
    """What the threads of a process have used (proc(5), schedstat): finer than the ticks of its stat."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def measured(
    servers: dict[str, ServerProcess], sets: dict[str, list[tuple[str, str]]], only: str
) -> Iterator[dict[str, Any]]:
    """Misses: each read is of rows and files that are not in memory. Hits: of what was read just before."""
    asked = {name: paths_of(images) for name, images in sets.items()}
    with httpx.Client() as client:
        for read in (read for read in asked["few"] if only in read):
            for kind in ("hit", "miss"):
                least = dict.fromkeys(servers, (float("inf"), float("inf")))
                for number in range(ROUNDS):
                    for name, server in servers.items():
                        paths = asked[name][read]
                        start = number * READS % len(paths)
                        chosen = [paths[start]] * READS if kind == "hit" else (paths * 3)[start : start + READS]
                        asked_for(client, server, chosen[:1])
                        found = zip(least[name], asked_for(client, server, chosen), strict=True)
                        least[name] = tuple(map(min, found))  # type: ignore[assignment]
                yield figure(read, kind, least)


def figure(read: str, kind: str, least: dict[str, tuple[float, float]]) -> dict[str, Any]:
    (few_ms, few_us), (many_ms, many_us) = least["few"], least["many"]
    return {
        "read": read,
        "kind": kind,
        "few_ms": round(few_ms, 3),
        "many_ms": round(many_ms, 3),
        "ratio_ms": round(many_ms / few_ms, 2),
        "few_us": round(few_us),
        "many_us": round(many_us),
        "ratio_us": round(many_us / few_us, 2),
    }


def filled(folder: Path, jobs: int) -> Path:
    """A data folder with so many jobs; one that was made before is taken as it is."""
    database = folder / f"{jobs}" / "data" / "imgsvc.db"
    made = database.with_name("made")
    if not made.exists():
        shutil.rmtree(database.parent, ignore_errors=True)
        began = time.monotonic()
        fill(database, jobs)
        made.touch()
        print(f"{jobs:,} jobs made in {time.monotonic() - began:.0f} s", file=sys.stderr)
    return folder / f"{jobs}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench reads growth", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="of the larger table; each has three events")
    parser.add_argument("--folder", type=Path, help="keep the tables there, and take those that are there")
    parser.add_argument("--fill", action="store_true", help="only make the tables")
    parser.add_argument("--only", default="", help="only the reads whose name contains this")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each figure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=memory()) as name:
        folders = {
            kind: filled(given.folder or Path(name), jobs) for kind, jobs in (("few", FEW), ("many", given.jobs))
        }
        if given.fill:
            return
        sets = {"few": images_of(folders["few"], FEW_SET), "many": images_of(folders["many"], MANY_SET)}
        for kind, images in sets.items():
            store_thumbnails(folders[kind], images)
        environment = {"LOG_LEVEL": "ERROR", "IMGSVC_SERVER_CACHE_MB": str(CACHE_MB)}
        few, many = (ServerProcess(folder, real=REAL, **environment) for folder in folders.values())
        with few, many:
            for server in (few, many):
                server.leave_unchecked("the rows of its table name files that are not there")
            time.sleep(SETTLE_SECONDS)
            for found in measured({"few": few, "many": many}, sets, given.only):
                print(json.dumps(found) if given.json else told(found), flush=True)


def told(found: dict[str, Any]) -> str:
    return (
        "{read:<14} {kind:<5} {few_ms:8.3f} ms {many_ms:8.3f} ms {ratio_ms:6.2f}   "
        "{few_us:6} us {many_us:6} us of processor time {ratio_us:6.2f}"
    ).format(**found)


if __name__ == "__main__":
    main()
