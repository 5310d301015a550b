"""The wall clock jumps by ten years and back by a day, while the service runs and over a restart.

No file is removed within the hour, and once the clock is right again no user is locked out.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from fixtures import make
from tests.support.server_process import ServerProcess, bearer, until
from tests.support.wall_clock import WallClock

pytestmark = [pytest.mark.torture, pytest.mark.process]

DAY = 86400
JUMPS = {"ten years ahead": 3650 * DAY, "a day back": -DAY}
SWEEPS_SECONDS = 20  # the expiry looks every 15
UPLOAD = "/api/v1/images/upload?bucket=b"


@contextmanager
def serving(folder: Path, clock: WallClock) -> Iterator[ServerProcess]:
    environ = {**clock.environ, "RATE_LIMIT_MAX_UPLOADS": "20", "IMGSVC_STORAGE_SIGNED_URLS": "true"}
    with ServerProcess(folder, real="its clock is faked", **environ) as server:
        yield server


def uploaded(server: ServerProcess, data: bytes, more: str = "") -> httpx.Response:
    headers = {**bearer(), "Content-Type": "image/jpeg"}
    return server.http.post(f"{server.url}{UPLOAD}{more}", content=data, headers=headers)


def is_readable(server: ServerProcess, image: str) -> bool:
    path = f"{server.url}/api/v1/images/{image}?size=thumbnail"
    return server.http.get(path, headers=bearer()).status_code == 200


def kept(server: ServerProcess) -> dict[str, list[str]]:
    return {name: server.files(name) for name in ("storage", "data/staging", "data/orphaned")}


@pytest.mark.parametrize("over", ["while it runs", "over a restart"])
@pytest.mark.parametrize("jump", JUMPS)
def test_clock_that_jumps_removes_nothing_and_locks_nobody_out(
    tmp_path: Path, jump: str, over: str, record_property: Callable[[str, object], None]
) -> None:
    clock = WallClock(tmp_path / "clock")
    with serving(tmp_path, clock) as server:
        expiring = uploaded(server, make.jpeg(640, 480, 1), "&expires_in=86400").json()
        plain = uploaded(server, make.jpeg(640, 480, 2)).json()
        for one in (expiring, plain):
            assert server.job_ended(one["job_id"])["status"] == "completed"
        before = kept(server)

        if over == "over a restart":
            assert server.stop() == 0
            clock.set(JUMPS[jump])
            server.start()
        else:
            clock.set(JUMPS[jump])
        until(lambda: "clocks_disagree" in server.log.read_text(), 120)
        began = time.monotonic()
        until(lambda: time.monotonic() - began > SWEEPS_SECONDS)  # the sweeps come and remove nothing
        after = kept(server)
        for name, files in before.items():
            record_property(f"files in {name} before and after", f"{len(files)} and {len(after[name])}")
        assert after == before
        assert server.http.get(f"{server.url}/api/v1/health/live").status_code == 200

        clock.set(0)
        until(lambda: uploaded(server, make.jpeg(640, 480, 4)).status_code == 202)
        for one in (expiring, plain):
            until(partial(is_readable, server, one["image_id"]))
        assert all(name in server.files("storage") for name in before["storage"])
        assert server.stop() == 0
        server.start()
        assert all(name in server.files("storage") for name in before["storage"])
        assert uploaded(server, make.jpeg(640, 480, 5)).status_code == 202
