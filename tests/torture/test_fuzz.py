"""Fifty thousand damaged pictures and five thousand damaged requests: each gets a definite answer, and nothing breaks.

By `./run torture` only. `FUZZ_SEED` chooses other ones than last time's; `FUZZ_FIRST` and `FUZZ_END` (not included)
bound the numbers of the pictures, so that a long run can be done in pieces; the name that a failure prints makes its
file again (`fixtures.mutations.one`).
"""

import asyncio
import collections
import json
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from fixtures import make, mutations
from tests.support.server_process import ServerProcess, bearer, until

pytestmark = [pytest.mark.torture, pytest.mark.process]

SEED = int(os.environ.get("FUZZ_SEED", "1"))
FIRST = int(os.environ.get("FUZZ_FIRST", "0"))
END = int(os.environ.get("FUZZ_END", "50000"))
BODIES = 5_000
AT_ONCE = 12
BATCH = 500  # uploads, after which the queue is waited for
LASTING = {"image_unreadable", "image_too_large", "image_unsupported"}  # codes that are the picture's doing
MEMORY_MB = 512
MEGABYTE = 1 << 20


async def uploaded(server: ServerProcess, batch: list[tuple[str, str, bytes]]) -> Iterator[tuple[str, int, str]]:
    """(name, status, job id or error code) of each."""
    slots = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:

        async def send(name: str, mime: str, data: bytes) -> tuple[str, int, str]:
            async with slots:
                headers = {**bearer("fuzz"), "Content-Type": mime}
                answer = await client.post("/api/v1/images/upload?bucket=b", content=data, headers=headers)
                body = answer.json()
                return name, answer.status_code, body.get("job_id") or body.get("code") or body.get("error_code") or ""

        return iter(await asyncio.gather(*(send(*one) for one in batch)))


def waiting(server: ServerProcess) -> int:
    with closing(sqlite3.connect(server.places.database)) as database:
        ended = "SELECT count(*) FROM processing_jobs WHERE status NOT IN ('completed', 'failed')"
        return int(database.execute(ended).fetchone()[0])


def failures(server: ServerProcess) -> dict[str, str]:
    """{job id: error code} of those that failed."""
    with closing(sqlite3.connect(server.places.database)) as database:
        return dict(database.execute("SELECT job_id, error_code FROM processing_jobs WHERE status = 'failed'"))


def test_damaged_pictures_get_definite_answers(tmp_path: Path) -> None:
    statuses: collections.Counter[str] = collections.Counter()
    jobs: dict[str, str] = {}
    settings = {
        "IMGSVC_WORKERS_MEMORY_MB": str(MEMORY_MB),
        "IMGSVC_WORKERS_COUNT": "2",
        "IMGSVC_JOBS_MAX_WAITING": "5000",
    }
    most = 0
    with ServerProcess(tmp_path, **settings) as server:
        workers = set(server.workers())
        for first in range(FIRST, END, BATCH):
            batch = [mutations.one(SEED, number, caged=True) for number in range(first, min(END, first + BATCH))]
            for name, status, found in asyncio.run(uploaded(server, batch)):
                statuses[f"{status} {found if status != 202 else ''}"] += 1
                assert status == 202 or 400 <= status < 500, (name, status, found)
                if status == 202:
                    jobs[found] = name
            until(lambda: not waiting(server), 120)
            most = max(most, sum(private_bytes(pid) for pid in server.workers()))
        failed = failures(server)
        codes = collections.Counter(failed.values())
        print(f"answers {dict(statuses)}; failed {dict(codes)}; {len(jobs) - len(failed)} completed")
        print(f"workers used {most / MEGABYTE:.0f} MB at most between batches of a budget of {MEMORY_MB}")
        strange = {jobs[job]: code for job, code in failed.items() if code not in LASTING}
        assert not strange, strange
        lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
        told = collections.Counter(line["job_id"] for line in lines if line["event"] == "job_failed")
        assert set(told) == set(failed) and set(told.values()) == {1}
        loud = collections.Counter(line["event"] for line in lines if line.get("level") in ("error", "critical"))
        assert not loud, loud
        ended = collections.Counter(line["reason"] for line in lines if line["event"] == "worker_ended")
        assert set(ended) <= {"retired"}, ended
        assert most < MEMORY_MB * MEGABYTE
        assert workers


def private_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def damaged_bodies() -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """(name, body, headers): multipart forms of a picture, changed like the pictures are, and their heads too."""
    picture = make.jpeg(64, 48)
    fields = [("bucket", b"b"), ("metadata", b'{"a": 1}'), ("trace_id", b"abc-123")]
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value for name, value in fields]
    parts.append(
        b'Content-Disposition: form-data; name="file"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + picture
    )
    whole = b"".join(b"--frontier\r\n" + part + b"\r\n" for part in parts) + b"--frontier--\r\n"
    for number in range(BODIES):
        chance = random.Random(f"{SEED}/body/{number}")
        body, names = whole, []
        for _ in range(chance.choice((1, 1, 2, 5))):
            name, change = chance.choice(mutations.CHANGES[:6])
            names.append(name)
            # Half of the changes hit the form around the picture.
            body = change(chance, "", body[:500]) + body[500:] if chance.random() < 0.5 else change(chance, "", body)
        kind = chance.choice(["multipart/form-data; boundary=frontier"] * 8 + ["multipart/form-data", "text/plain"])
        yield f"{SEED}/body/{number} {' '.join(names)}", body, {"Content-Type": kind}


def test_damaged_requests_get_definite_answers(tmp_path: Path) -> None:
    statuses: collections.Counter[int] = collections.Counter()
    with ServerProcess(tmp_path) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        for name, body, headers in damaged_bodies():
            answer = client.post("/api/v1/images/upload", content=body, headers={**bearer("fuzz"), **headers})
            statuses[answer.status_code] += 1
            assert answer.status_code == 202 or 400 <= answer.status_code < 500, (name, answer.text)
        until(lambda: not waiting(server), 120)
        print(f"answers {dict(sorted(statuses.items()))}")
        assert not set(failures(server).values()) - LASTING
        assert '"level": "error"' not in server.log.read_text()
