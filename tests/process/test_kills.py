"""Promise 1: kill it at any instant, any number of times; nothing accepted is lost, nothing stray is left."""

import hashlib
import random
import signal
import sqlite3
import threading
import time
from pathlib import Path

import httpx
import pytest

from fixtures import make
from tests.support.server_process import ServerProcess, until

pytestmark = pytest.mark.process
UPLOADERS = 3
AT_REST = 5  # rounds, after which all jobs end once: one that was killed ten times is given up
SIZES = {"thumbnail", "medium", "large", "original"}


class Load:
    """Uploads without a pause until stopped, and the receipts that were given."""

    def __init__(self, server: ServerProcess, pictures: list[bytes]) -> None:
        self.receipts: list[str] = []
        self._server = server
        self._pictures = pictures
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._upload, args=(number,)) for number in range(UPLOADERS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _upload(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            turn += 1
            try:
                answer = self._server.upload(self._pictures[turn % len(self._pictures)], user=f"user-{number}")
            except httpx.HTTPError:
                continue
            if answer.status_code == 202:
                self.receipts.append(answer.json()["job_id"])


def test_three_kills_under_load_lose_nothing(tmp_path: Path) -> None:  # a hundred in ./run torture
    kill_and_replay(tmp_path, rounds=3, seed=20)


def kill_and_replay(tmp_path: Path, *, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    pictures = [make.jpeg(480, 360, seed) for seed in range(3)] + [make.encoded(make.quadrants(), "PNG")]
    receipts: list[str] = []
    server = ServerProcess(tmp_path, IMGSVC_WORKERS_COUNT="2", IMGSVC_WORKERS_GRACE_SECONDS="0.2")
    settled = 0
    for number in range(rounds):
        server.start()
        if number % AT_REST == AT_REST - 1:
            for job_id in receipts[settled:]:
                server.job_ended(job_id)
            settled = len(receipts)
        with Load(server, pictures) as load:
            until(lambda load=load: load.receipts)  # type: ignore[misc]
            time.sleep(chance.uniform(0, 0.3))  # the moment of the kill is what is tested
            server.signal(chance.choice((signal.SIGKILL, signal.SIGTERM)))
            server.ended()
        receipts += load.receipts
    with server:
        ends = [server.job_ended(job_id) for job_id in receipts]
        assert {job["status"] for job in ends} == {"completed"}
        assert {job["attempts"] for job in ends} == {0}
        for job in chance.sample(ends, 10):
            for size in SIZES:
                answer = server.http.get(f"{server.url}/api/v1/images/{job['image_id']}/direct", params={"size": size})
                assert answer.headers["etag"].strip('"') == hashlib.sha256(answer.content).hexdigest()[:32]
        until(lambda: not server.files("data/staging"))
        assert server.stop() == 0
    rows = sqlite3.connect(tmp_path / "data" / "imgsvc.db").execute("SELECT image_id FROM processing_jobs").fetchall()
    assert len(rows) >= len(receipts) > rounds
    expected = sorted(f"b/processed/{size}/{image_id}_{size}.webp" for (image_id,) in rows for size in SIZES)
    assert server.files("storage") == expected
    assert server.files("data/staging") == []
    assert [name for name in server.files("data/scratch") if name != "health"] == []
