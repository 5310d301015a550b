"""How long an upload takes to be accepted or refused, with an authorization server known, asked, and away.

`./run bench authorization`: real servers, one small upload after the other, each timed until its answer; the job that
it starts has ended before the next one. Rounds take turns, so that what disturbs the machine disturbs all of them.
"""

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from fixtures import make
from tests.support import authorization_server as says
from tests.support.authorization_server import Act, AuthorizationServer
from tests.support.server_process import ServerProcess

ROUNDS, UPLOADS = 4, 30
TINY = make.jpeg(64, 48)
NEVER = "1000000"


class Background:
    """An authorization server in a thread of its own."""

    def __init__(self, act: Act) -> None:
        self.server = AuthorizationServer(act)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self.server.start())

    def stop(self) -> None:
        self._do(self.server.stop())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


@contextmanager
def service(**environment: str) -> Iterator[ServerProcess]:
    with tempfile.TemporaryDirectory() as name, ServerProcess(Path(name), LOG_LEVEL="ERROR", **environment) as server:
        yield server


def timed(server: ServerProcess, status: int, user: str = "alice") -> float:
    """Milliseconds until the answer to one upload."""
    began = time.perf_counter()
    answer = server.upload(TINY, user)
    took = 1000 * (time.perf_counter() - began)
    assert answer.status_code == status, answer.text
    if status == 202:
        server.job_ended(answer.json()["job_id"])
    return took


def told(name: str, found: list[float], base: float = 0) -> None:
    found.sort()
    beside = f"   {statistics.median(found) - base:+6.2f} ms beside the first" if base else ""
    print(
        f"{name:<58} median {statistics.median(found):7.2f} ms   95 % {found[int(len(found) * 0.95)]:7.2f} ms"
        f"   ({len(found)}){beside}"
    )


def taken_in_turns(situations: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    for take in situations.values():
        for _ in range(5):
            take()
    found: dict[str, list[float]] = {name: [] for name in situations}
    for _ in range(ROUNDS):
        for name, take in situations.items():
            found[name] += [take() for _ in range(UPLOADS)]
    return found


def main() -> None:
    with ExitStack() as stack:
        good, dead, mute = Background(says.GRANT), Background(says.GRANT), Background(says.stall)
        for one in (good, dead, mute):
            stack.callback(one.close)
        dead.stop()

        def asking(one: Background, **environment: str) -> ServerProcess:
            remote = {"AUTH_PERMISSIONS": "remote", "AUTH_API_URL": one.server.url}
            return stack.enter_context(service(**remote, **environment))

        away = asking(dead)
        for n in range(5):
            timed(away, 503, f"user-{n}")  # these open the breaker
        known = asking(good, AUTH_CACHE_TTL_WRITE="3600")
        timed(known, 202)
        situations: dict[str, Callable[[], float]] = {}

        def situation(name: str, server: ServerProcess, status: int) -> None:
            situations[name] = lambda: timed(server, status)

        situation("202, no authorization server", stack.enter_context(service()), 202)
        situation("202, remembered", known, 202)
        situation("202, asked for each (AUTH_CACHE_ENABLED=false)", asking(good, AUTH_CACHE_ENABLED="false"), 202)
        situation("503, connection refused, breaker closed", asking(dead, CIRCUIT_BREAKER_THRESHOLD=NEVER), 503)
        situation("503, breaker open", away, 503)
        found = taken_in_turns(situations)
        base = statistics.median(next(iter(found.values())))
        for place, (name, times) in enumerate(found.items()):
            told(name, times, base if place and name.startswith("202") else 0)
        slow = asking(mute)
        told("503, it never answers (AUTH_API_TIMEOUT=5), breaker closed", [timed(slow, 503) for _ in range(2)])
        good.stop()
        timed(known, 503, "bob")
        told("202, remembered, and the server is away", [timed(known, 202) for _ in range(UPLOADS)], base)
        mute.stop()


if __name__ == "__main__":
    main()
