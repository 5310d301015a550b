"""Disks that are full, read-only, failing or slow: uploads are refused, deletions and starts work, nothing is lost.

After each one the invariants are checked, and with them the database (PRAGMA integrity_check).
"""

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from fixtures import make
from tests.support.preload import COUNTED, library
from tests.support.server_process import ServerProcess, bearer, until
from tests.support.small_disk import fill, make_room, mounted

pytestmark = [pytest.mark.torture, pytest.mark.process]

PHOTO = make.jpeg(2000, 1500)
SMALL = make.jpeg(640, 480)
SOON = {"IMGSVC_JOBS_RETRY_DELAY_SECONDS": "1", "IMGSVC_STORAGE_RESERVE_MB": "4", "IMGSVC_IMAGES_REUSE": "false"}
REFUSED = {503, 507}


def on(disk: Path) -> dict[str, str]:
    return {"DATABASE_PATH": str(disk / "data" / "imgsvc.db"), "STORAGE_PATH": str(disk / "storage"), **SOON}


def delete(server: ServerProcess, image: str) -> int:
    return server.http.delete(f"{server.url}/api/v1/images/{image}", headers=bearer()).status_code


def completed(server: ServerProcess, accepted: list[dict[str, Any]]) -> None:
    """All of them, tried again by the operator where the service has given up."""
    for one in accepted:
        job = server.job_ended(one["job_id"])
        if job["status"] == "failed":
            assert job["retryable"], job
            assert server.run("jobs", "retry", one["job_id"]).returncode == 0
            until(partial(_is_completed, server, one["job_id"]))
        answer = server.http.get(f"{server.url}/api/v1/images/{one['image_id']}/direct", params={"size": "large"})
        assert answer.status_code == 200


def _is_completed(server: ServerProcess, job_id: str) -> bool:
    return bool(server.job(job_id)["status"] == "completed")


@pytest.mark.parametrize("storage", ["the same disk", "a disk of its own"])
def test_disk_that_others_fill_while_jobs_run(tmp_path: Path, storage: str) -> None:
    with mounted(tmp_path / "disk", 64) as disk, mounted(tmp_path / "second", 64) as second:
        environ = on(disk) | ({"STORAGE_PATH": str(second / "storage")} if storage == "a disk of its own" else {})
        filled = Path(environ["STORAGE_PATH"]).parent
        with ServerProcess(tmp_path, **environ) as server:
            first = server.upload(SMALL).json()
            assert server.job_ended(first["job_id"])["status"] == "completed"
            accepted = [server.upload(PHOTO).json() for _ in range(6)]
            fill(filled)
            answers = {server.upload(PHOTO).status_code for _ in range(3)}
            assert answers <= (REFUSED if filled == disk else {*REFUSED, 202}), answers
            assert delete(server, first["image_id"]) == 200
            assert server.stop() == 0
            server.start()  # while it is full
            assert server.http.get(f"{server.url}/api/v1/health/live").status_code == 200
            make_room(filled)
            until(lambda: server.upload(SMALL).status_code == 202)
            completed(server, accepted)


def test_storage_that_becomes_read_only(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", 64) as disk:
        environ = {"STORAGE_PATH": str(disk / "storage"), **SOON}
        with ServerProcess(tmp_path, **environ) as server:
            first = server.upload(SMALL).json()
            assert server.job_ended(first["job_id"])["status"] == "completed"
            accepted = [server.upload(PHOTO).json() for _ in range(4)]
            until(lambda: _remounted(disk, "ro"))
            answer = server.upload(PHOTO)
            assert answer.status_code in {202, *REFUSED}, answer.text
            accepted += [answer.json()] if answer.status_code == 202 else []
            assert server.http.get(f"{server.url}/api/v1/images/{first['image_id']}/direct").status_code == 200
            assert server.stop() == 0
            server.start()  # while nothing can be written there
            assert server.http.get(f"{server.url}/api/v1/images/{first['image_id']}/direct").status_code == 200
            assert delete(server, first["image_id"]) in {200, *REFUSED}
            assert _remounted(disk, "rw")
            until(lambda: server.upload(SMALL).status_code == 202)
            completed(server, accepted)
            until(lambda: delete(server, first["image_id"]) in {200, 404})


def _remounted(disk: Path, how: str) -> bool:
    """Refused as long as a file is open for writing."""
    return subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], capture_output=True).returncode == 0


@contextmanager
def faulty(folder: Path, calls: str, **settings: object) -> Iterator[tuple[ServerProcess, Path]]:
    """A service whose calls go wrong while the file that comes with it is there."""
    switch = folder / "switch"
    lines = [f"folder={folder}", f"except={folder}/log.txt", f"calls={calls}", "number=1", "times=0"]
    lines += [f"switch={switch}", *(f"{name}={value}" for name, value in settings.items())]
    server = ServerProcess(
        folder, real="the library is preloaded", LD_PRELOAD=str(library()), KILL_AT="\n".join(lines), **SOON
    )
    with server:
        yield server, switch


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_disk_whose_every_write_fails_for_a_while(tmp_path: Path, error: str) -> None:
    calls = ",".join(COUNTED["ENOSPC" if error == "ENOSPC" else "EIO"])
    with faulty(tmp_path, calls, action=error) as (server, switch):
        first = server.upload(SMALL).json()
        assert server.job_ended(first["job_id"])["status"] == "completed"
        accepted = [server.upload(PHOTO).json() for _ in range(4)]
        switch.touch()
        for _ in range(3):
            answer = server.upload(PHOTO)
            assert answer.status_code in REFUSED, answer.text
        assert delete(server, first["image_id"]) in {200, *REFUSED}
        assert server.http.get(f"{server.url}/api/v1/images/{accepted[0]['image_id']}").status_code in {200, 404}
        switch.unlink()
        until(lambda: server.upload(SMALL).status_code == 202)
        completed(server, accepted)
        assert delete(server, first["image_id"]) in {200, 404}
        assert server.stop() == 0
        server.start()
        completed(server, accepted)


def test_syncs_that_take_two_seconds(tmp_path: Path) -> None:
    """Reads and the health check go on; what is accepted is right."""
    with faulty(tmp_path, "fsync,fdatasync", action="slow", seconds=2) as (server, switch):
        first = server.upload(SMALL).json()
        assert server.job_ended(first["job_id"])["status"] == "completed"
        switch.touch()
        with ThreadPoolExecutor(6) as threads:
            uploads = [threads.submit(_upload, server, number) for number in range(6)]
            slowest = 0.0
            while not all(upload.done() for upload in uploads):
                began = time.monotonic()
                assert server.http.get(f"{server.url}/api/v1/images/{first['image_id']}").status_code == 200
                slowest = max(slowest, time.monotonic() - began)
            answers = [upload.result() for upload in uploads]
        assert {answer.status_code for answer in answers} <= {202, 503}, answers
        assert slowest < 1.5, "a read waited for a sync"
        switch.unlink()
        completed(server, [answer.json() for answer in answers if answer.status_code == 202])


def _upload(server: ServerProcess, number: int) -> httpx.Response:
    files = {"file": ("photo.jpg", make.jpeg(640, 480, number))}
    with httpx.Client(timeout=120) as client:
        return client.post(
            f"{server.url}/api/v1/images/upload", data={"bucket": "b"}, files=files, headers=bearer(f"user{number}")
        )


def test_no_files_left_to_open(tmp_path: Path) -> None:
    """EMFILE: its limit is lowered to what it has open, and raised again."""
    with ServerProcess(tmp_path, **SOON) as server:
        accepted = [server.upload(PHOTO).json() for _ in range(4)]
        soft, hard = resource.prlimit(server.service_pid, resource.RLIMIT_NOFILE)
        opened = len(os.listdir(f"/proc/{server.service_pid}/fd"))  # noqa: PTH208
        resource.prlimit(server.service_pid, resource.RLIMIT_NOFILE, (opened, hard))
        for _ in range(3):
            with httpx.Client(timeout=10) as client:
                try:
                    answer = client.get(f"{server.url}/api/v1/health/live")
                except httpx.HTTPError:
                    continue  # no descriptor for a further connection
                assert answer.status_code in {200, 503}
        answer = server.upload(PHOTO)
        assert answer.status_code in {202, *REFUSED}, answer.text
        resource.prlimit(server.service_pid, resource.RLIMIT_NOFILE, (soft, hard))
        until(lambda: server.upload(SMALL).status_code == 202)
        completed(server, accepted)
