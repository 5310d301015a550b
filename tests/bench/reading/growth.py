"""How reads grow with the table: a service with a thousand jobs beside one with a million, each with little memory.

`./run bench reads growth [--jobs N]`: for rows only, since no files are made; hits and misses apart.
"""

import argparse
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from tests.support.many_jobs import fill
from tests.support.server_process import ServerProcess

FEW, ROUNDS, READS, SET = 1000, 7, 300, 900
CACHE_MB = 1.0  # a tenth of what the rows of a working set take
SETTLE_SECONDS = 5  # waiting jobs of the tables have no uploads and end as failed
IMAGES = "/api/v1/images"


def images_of(folder: Path, most: int) -> list[tuple[str, str]]:
    """(image id, job id) of completed images, at random."""
    with closing(sqlite3.connect(folder / "data" / "imgsvc.db")) as db:
        found = db.execute(
            "SELECT image_id, job_id FROM processing_jobs WHERE status = 'completed' AND deleted_at IS NULL"
        ).fetchall()
    random.Random(7).shuffle(found)
    return [(str(image), str(job)) for image, job in found[:most]]


def paths_of(images: list[tuple[str, str]]) -> dict[str, list[str]]:
    return {
        "info": [f"{IMAGES}/{image}" for image, _ in images],
        "all": [f"{IMAGES}/{image}/all" for image, _ in images],
        "job": [f"{IMAGES}/jobs/{job}" for _, job in images],
        "batch of 10": [
            f"{IMAGES}/batch?image_ids={','.join(image for image, _ in images[n : n + 10])}"
            for n in range(0, len(images) - 9, 10)
        ],
    }


def milliseconds(client: httpx.Client, url: str, paths: list[str]) -> float:
    """The median of one read after the other."""
    taken = []
    for path in paths:
        began = time.perf_counter()
        assert client.get(url + path).status_code == 200
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def measured(few: ServerProcess, many: ServerProcess) -> Iterator[dict[str, Any]]:
    """Misses: each read is of a row that is not in memory. Hits: of a row that was read just before."""
    servers = {"few": few, "many": many}
    asked = {"few": paths_of(images_of(few.folder, SET)), "many": paths_of(images_of(many.folder, 10 * SET))}
    with httpx.Client() as client:
        for read in asked["few"]:
            for kind in ("hit", "miss"):
                least = dict.fromkeys(servers, float("inf"))
                for number in range(ROUNDS):
                    for name, server in servers.items():
                        paths = asked[name][read]
                        start = number * READS % len(paths)
                        chosen = [paths[start]] * READS if kind == "hit" else (paths * 2)[start : start + READS]
                        milliseconds(client, server.url, chosen[:1])
                        least[name] = min(least[name], milliseconds(client, server.url, chosen))
                yield {"read": read, "kind": kind, **least, "ratio": least["many"] / least["few"]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench reads growth", description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="of the larger table; each has three events")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each figure")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / "few", Path(name) / "many"]
        for folder, jobs in zip(folders, (FEW, given.jobs), strict=True):
            fill(folder / "data" / "imgsvc.db", jobs)
        environment = {"LOG_LEVEL": "ERROR", "IMGSVC_SERVER_CACHE_MB": str(CACHE_MB)}
        with ServerProcess(folders[0], **environment) as few, ServerProcess(folders[1], **environment) as many:
            for server in (few, many):
                server.leave_unchecked("the rows of its table name files that are not there")
            time.sleep(SETTLE_SECONDS)
            for figure in measured(few, many):
                print(json.dumps(figure) if given.json else told(figure), flush=True)


def told(figure: dict[str, Any]) -> str:
    return "{read:<14} {kind:<5} {few:8.3f} ms {many:8.3f} ms {ratio:6.2f}".format(**figure)


if __name__ == "__main__":
    main()
