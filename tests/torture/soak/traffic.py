"""Uploads at a given rate, and what applications do with them: read, wait for the webhook, delete."""

import random
import statistics
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.server_process import ServerProcess, bearer

IMAGES = "/api/v1/images"
USERS, KEPT, CLIENTS = 10, 200, 12  # KEPT: images that are read, the oldest of which is deleted


@dataclass(slots=True)
class Counts:
    accepted: int = 0
    refused: int = 0  # 429, 503 or 507
    wrong: list[str] = field(default_factory=list)
    read_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=20_000))

    def p99(self) -> float:
        """Seconds, of the reads since the last call."""
        found = [self.read_seconds.popleft() for _ in range(len(self.read_seconds))]
        return statistics.quantiles(found, n=100)[98] if len(found) > 1 else 0.0


class Traffic:
    """Open loop: an upload begins when its turn has come, however long the earlier ones take."""

    def __init__(self, server: ServerProcess, photos: list[bytes], per_second: float, seed: int) -> None:
        self.counts = Counts()
        self.receipts: dict[str, tuple[str, str]] = {}  # {image: (job, user)}, of those that were not deleted
        self._server, self._photos, self._pause = server, photos, 1 / per_second
        self._chance = random.Random(seed)
        self._client = httpx.Client(timeout=60, limits=httpx.Limits(max_connections=2 * CLIENTS))
        self._lock = threading.Lock()

    def run(self, until: float) -> None:
        """Until this moment (time.monotonic)."""
        number, turn = 0, time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as threads:
            while turn < until:
                time.sleep(max(0.0, turn - time.monotonic()))
                threads.submit(self._guarded, number)
                number, turn = number + 1, turn + self._pause

    def close(self) -> None:
        self._client.close()

    def _guarded(self, number: int) -> None:
        try:
            self._one(number)
        except Exception as error:
            self.counts.wrong.append(f"{type(error).__name__}: {error}")

    def _one(self, number: int) -> None:
        user = f"user{number % USERS}"
        answer = self._client.post(
            f"{self._server.url}{IMAGES}/upload?bucket=soak",
            content=self._photos[number % len(self._photos)],
            headers={**bearer(user), "Content-Type": "image/jpeg"},
        )
        if answer.status_code != 202:
            self.counts.refused += answer.status_code in (429, 503, 507)
            if answer.status_code not in (429, 503, 507):
                self.counts.wrong.append(f"an upload was answered with {answer.status_code}")
            return
        self.counts.accepted += 1
        with self._lock:
            self.receipts[answer.json()["image_id"]] = answer.json()["job_id"], user
            images = list(self.receipts)
        self._read(self._chance.choice(images))
        if len(images) > KEPT:
            self._delete(images[0])

    def _read(self, image: str) -> None:
        for path in ("?size=thumbnail", "/direct?size=thumbnail", "/direct?size=large"):
            began = time.monotonic()
            answer = self._client.get(f"{self._server.url}{IMAGES}/{image}{path}")
            self.counts.read_seconds.append(time.monotonic() - began)
            if answer.status_code not in (200, 404):  # 404: not rendered yet, or deleted
                self.counts.wrong.append(f"{path} was answered with {answer.status_code}")

    def _delete(self, image: str) -> None:
        with self._lock:
            receipt = self.receipts.pop(image, None)
        if receipt is None:
            return  # another thread deletes it
        answer = self._client.delete(f"{self._server.url}{IMAGES}/{image}", headers=bearer(receipt[1]))
        if answer.status_code != 200:
            self.counts.wrong.append(f"a deletion was answered with {answer.status_code}")


def statuses(server: ServerProcess, jobs: list[str]) -> dict[str, Any]:
    """{job: status}, once all have ended."""
    return {job: server.job_ended(job)["status"] for job in jobs}
