"""`./run bench reuse`: how soon a photo that its user uploads again is ready, beside a bare process.

That process does the same to the same files: a link, a digest, two syncs and a rename for each variant, and one commit.
The service's time is from `created_at` of a job, which is before the commit that accepts it, until a client that waits
for it (`Prefer: wait`) sees it completed. In turn within one run, on a disk; medians.
"""

import argparse
import hashlib
import json
import os
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from fixtures import make
from tests.support.server_process import ServerProcess

ROUNDS, TIMES = 20, 3
REAL = "its time is measured"


def bare_ms(folder: Path, variants: list[Path], number: int) -> float:
    """The same links, syncs and one commit without a service."""
    with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS jobs (n);")
        began = time.perf_counter()
        for variant in variants:
            target = folder / variant.parent.name / f"{number}.webp"
            target.parent.mkdir(exist_ok=True)
            unnamed = target.with_suffix(".partial")
            os.link(variant, unnamed)
            with unnamed.open("rb") as stream:
                hashlib.file_digest(stream, "sha256")
                os.fsync(stream.fileno())
            unnamed.replace(target)
            _sync(target.parent)
        db.execute("INSERT INTO jobs VALUES (?)", [number])
        return 1000 * (time.perf_counter() - began)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def reused_ms(server: ServerProcess, photo: bytes) -> float:
    receipt = server.upload(photo).json()
    path = f"{server.url}/api/v1/images/jobs/{receipt['job_id']}"
    job = server.http.get(path, headers={"Prefer": "wait=30"}).json()
    seen = datetime.now(UTC)
    assert job["status"] == "completed"
    return 1000 * (seen - datetime.fromisoformat(job["created_at"])).total_seconds()


def measured(server: ServerProcess, folder: Path, rounds: int) -> dict[str, float]:
    photo = make.jpeg(2000, 1500)
    server.job_ended(server.upload(photo).json()["job_id"])
    variants = sorted((server.folder / "storage").rglob("*.webp"))
    own, bare = [], []
    for number in range(rounds + 1):  # the first one makes folders, and is left out
        own.append(reused_ms(server, photo))
        bare.append(bare_ms(folder, variants, number))
    metrics = server.http.get(f"{server.url}/metrics", headers=server.operator).text
    assert f'image_reuse_total{{status="reused"}} {rounds + 1}' in metrics
    ours, theirs = statistics.median(own[1:]), statistics.median(bare[1:])
    return {"reused_ms": round(ours, 2), "bare_ms": round(theirs, 2), "ratio": round(ours / theirs, 2)}


def main() -> None:
    parser = argparse.ArgumentParser("./run bench reuse", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        tempfile.TemporaryDirectory(dir=name) as beside,
        ServerProcess(Path(name), real=REAL, LOG_LEVEL="ERROR") as server,
    ):
        found = measured(server, Path(beside), given.rounds)
    print(json.dumps(found) if given.json else "{reused_ms} ms, bare {bare_ms} ms: {ratio} x".format(**found))


if __name__ == "__main__":
    main()
