"""A stranger's upload, thumbnail and info, alone and beside a crowd of connections; and 200 uploads at once."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from fixtures import make
from tests.bench.memory import sampled, with_comment
from tests.support.server_process import ServerProcess, bearer, until
from tests.torture.connections.clients import crowd, sockets

UPLOAD, IMAGES = "/api/v1/images/upload?bucket=b", "/api/v1/images"
READ = "/docs/swagger-ui-bundle.js"  # 1.4 MB
MOST_TIMES, MOST_KB = 2.0, 60.0
STEPS = ("upload", "thumbnail", "info")
SMALL = make.jpeg(640, 480)


@dataclass(slots=True)
class Stranger:
    """Seconds of each step: the upload until its 202, then until its thumbnail can be fetched, then its info."""

    server: ServerProcess
    number: int = 0
    spent: dict[str, list[float]] = field(default_factory=lambda: {step: [] for step in STEPS})

    def work(self, rounds: int) -> dict[str, float]:
        """The medians of so many uploads of different photos."""
        self.spent = {step: [] for step in STEPS}
        with httpx.Client(timeout=60) as client:
            for _ in range(rounds):
                self._one(client)
        return {step: statistics.median(found) for step, found in self.spent.items()}

    def _one(self, client: httpx.Client) -> None:
        self.number += 1
        headers = {**bearer("stranger"), "Content-Type": "image/jpeg"}
        moments = [time.perf_counter()]
        photo = with_comment(SMALL, self.number)
        answer = client.post(f"{self.server.url}{UPLOAD}", content=photo, headers=headers)
        assert answer.status_code == 202, answer.text
        moments.append(time.perf_counter())
        image = answer.json()["image_id"]
        thumbnail = f"{self.server.url}{IMAGES}/{image}/direct?size=thumbnail"
        while client.get(thumbnail).status_code != 200:
            time.sleep(0.002)
        moments.append(time.perf_counter())
        assert client.get(f"{self.server.url}{IMAGES}/{image}?size=thumbnail").status_code == 200
        moments.append(time.perf_counter())
        for step, began, ended in zip(STEPS, moments, moments[1:], strict=False):
            self.spent[step].append(ended - began)
        self.server.job_ended(answer.json()["job_id"])  # the next one is alone, too


@dataclass(frozen=True, slots=True)
class Beside:
    """What a crowd costs: times of each step beside alone, and memory for each connection."""

    connections: int
    times: dict[str, float]
    kilobytes: float
    gone_seconds: float | None  # None: some are still there after the limits

    def findings(self, *, timed: bool = True) -> list[str]:
        found = [
            f"A stranger's {step} takes {times:.2f} times as long beside {self.connections} connections."
            for step, times in self.times.items()
            if timed and times > MOST_TIMES
        ]
        if self.kilobytes > MOST_KB:
            found.append(f"Each connection takes {self.kilobytes:.0f} KB.")
        if self.gone_seconds is None:
            found.append("Connections are still open after their limits.")
        return found


def beside_a_crowd(
    server: ServerProcess, rounds: int, sizes: tuple[int, int, int], limit_seconds: float, step: Callable[[str], None]
) -> Beside:
    """`sizes`: idle ones, readers, writers. `limit_seconds`: after which the service's settings let none stay.

    `step` is called with the words for what goes on.
    """
    stranger = Stranger(server)
    stranger.work(rounds)  # what is made once, at a first use
    with crowd(server, READ, *(min(20, size) for size in sizes)):
        pass
    step(f"{rounds} uploads of a stranger, alone")
    before = stranger.work(rounds)
    open_before = sockets(server.service_pid)
    idle_mb = sampled(server.service_pid).service
    began = time.monotonic()
    with crowd(server, READ, *sizes) as there:
        until(lambda: sockets(server.service_pid) >= open_before + 0.9 * there.count)
        beside = stranger.work(rounds)
        crowd_mb = sampled(server.service_pid).service
        held = sockets(server.service_pid) - open_before
        step(f"{held} of {there.count} connections are open after that; their limits are {limit_seconds:g} s")
        gone: float | None = None
        while time.monotonic() - began < 3 * limit_seconds + 60:
            if sockets(server.service_pid) <= open_before + 2:
                gone = time.monotonic() - began
                break
            time.sleep(0.25)
        count = there.count
    step("alone again")
    after = stranger.work(rounds)
    alone = {step: statistics.mean((before[step], after[step])) for step in STEPS}
    return Beside(
        count, {step: beside[step] / alone[step] for step in STEPS}, (crowd_mb - idle_mb) * 1024 / count, gone
    )


def at_once(server: ServerProcess, count: int) -> tuple[Counter[int], list[str]]:
    """The answers to so many uploads at once, and what is not definite."""

    def one(number: int) -> httpx.Response | str:
        headers = {**bearer(f"one{number}"), "Content-Type": "image/jpeg"}
        photo = with_comment(SMALL, 1_000_000 + number)
        try:
            return httpx.post(f"{server.url}{UPLOAD}", content=photo, headers=headers, timeout=120)
        except httpx.HTTPError as error:
            return f"an upload got no answer: {error!r}"

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(one, range(count)))
    wrong = [answer for answer in answers if isinstance(answer, str)]
    given = [answer for answer in answers if not isinstance(answer, str)]
    for answer in given:
        definite = answer.status_code in (202, 429) or (answer.status_code == 503 and "retry-after" in answer.headers)
        wrong += [] if definite else [f"An upload was answered with {answer.status_code}."]
    for answer in given:
        if answer.status_code == 202:
            status = server.job_ended(answer.json()["job_id"])["status"]
            wrong += [] if status == "completed" else [f"An upload of {count} at once ended as {status}."]
    return Counter(answer.status_code for answer in given), wrong
