"""`imgsvc storage …` against a real server that is killed, stopped and used meanwhile, and without one."""

import hashlib
import json
import random
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fixtures import make
from tests.support.maintenance import SIZES, files
from tests.support.processes import Process, begin
from tests.support.server_process import InlineServer, ServerProcess, bearer, until
from tests.support.speed import seconds

pytestmark = pytest.mark.process
TINY = make.tiny()
UNKNOWN = "00000000-0000-4000-8000-000000000000"
ORPHAN = f"b/processed/large/{UNKNOWN}_large.webp"


class TwoStorages(InlineServer):
    module = "tests.support.two_storages"


def storage(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return server.run("storage", *arguments)


def moving_to_other(server: ServerProcess) -> Process:
    arguments = ["storage", "migrate", "--to", "other"]
    return begin(arguments, folder=server.folder, environ=server.environ, module=server.module)


def uploaded(server: ServerProcess, many: int, *, size: tuple[int, int] = (80, 60)) -> list[str]:
    """The ids of new images, once they are completed."""
    receipts = [server.upload(make.jpeg(*size, seed)).json() for seed in range(many)]
    assert {server.job_ended(one["job_id"])["status"] for one in receipts} == {"completed"}
    return [one["image_id"] for one in receipts]


def completed(server: ServerProcess, many: int, *, size: tuple[int, int] = (80, 60)) -> dict[str, dict[str, bytes]]:
    """{image: {size: bytes}} of new images."""
    return {image_id: variants(server, image_id) for image_id in uploaded(server, many, size=size)}


def variants(server: ServerProcess, image_id: str) -> dict[str, bytes]:
    address = f"{server.url}/api/v1/images/{image_id}/direct"
    answers = {size: server.http.get(address, params={"size": size}, follow_redirects=True) for size in SIZES}
    assert {answer.status_code for answer in answers.values()} == {200}
    return {size: answer.content for size, answer in answers.items()}


def whole(server: ServerProcess) -> None:
    report = storage(server, "verify", "--digests", "--grace", "0", "--json")
    assert report.returncode == 0, report.stdout + report.stderr


@pytest.fixture(params=[True, False], ids=["service", "alone"])
def running(request: pytest.FixtureRequest) -> bool:
    """Whether a service runs while the commands are given."""
    return bool(request.param)


@contextmanager
def with_three_images(folder: Path, running: bool) -> Iterator[tuple[ServerProcess, dict[str, dict[str, bytes]]]]:
    with TwoStorages(folder) as server:
        images = completed(server, 3)
        if not running:
            assert server.stop() == 0
        yield server, images


def test_verify_and_gc(tmp_path: Path, running: bool) -> None:
    with with_three_images(tmp_path, running) as (server, _):
        well = storage(server, "verify", "--grace", "0")
        assert (well.returncode, well.stderr) == (0, "")
        assert re.fullmatch(r"verify: 3 images, 12 files, 0\.\d MB: all is well\n", well.stdout)

        (tmp_path / "storage" / ORPHAN).write_bytes(b"12345")
        if not running:
            found = storage(server, "verify", "--grace", "0")
            assert found.returncode == 1
            assert f"orphaned         local: {ORPHAN} (5 bytes)\n" in found.stdout and "1 orphaned\n" in found.stdout
        report = json.loads(storage(server, "verify", "--grace", "0", "--json").stdout)
        assert (report["counts"]["orphaned"], report["findings"][0]["path"]) == (1, ORPHAN)

        if not running:
            listed = storage(server, "gc", "--older-than", "0")
            assert listed.returncode == 0 and "would remove 1 files" in listed.stdout and "--yes" in listed.stdout
            assert (tmp_path / "storage" / ORPHAN).exists()
        assert "removed 1 files" in storage(server, "gc", "--yes", "--older-than", "0").stdout
        whole(server)


def test_migrate(tmp_path: Path, running: bool) -> None:
    with with_three_images(tmp_path, running) as (server, _):
        if not running:
            planned = storage(server, "migrate", "--to", "other", "--dry-run")
            assert planned.returncode == 0 and "would move 3 images, 12 files" in planned.stdout
        moved = storage(server, "migrate", "--to", "other")
        assert moved.returncode == 0 and "moved 3 images, 12 files" in moved.stdout
        assert files(tmp_path / "storage") == set() and len(files(tmp_path / "other")) == 12
        assert storage(server, "migrate", "--to", "local").returncode == 0
        unknown = storage(server, "migrate", "--to", "s4")
        assert (unknown.returncode, unknown.stdout) == (1, "") and "The backend s4 is not configured" in unknown.stderr


def test_backup_and_restore(tmp_path: Path, running: bool) -> None:
    with with_three_images(tmp_path, running) as (server, images):
        kept = storage(server, "backup", "kept")
        assert kept.returncode == 0 and "12 variants" in kept.stdout and (tmp_path / "kept/manifest.json").exists()
        refused = storage(server, "backup", "data/kept")
        assert (refused.returncode, refused.stdout) == (1, "") and "must be outside" in refused.stderr
        checked = storage(server, "restore", "kept", "--dry-run")
        assert checked.returncode == 0 and "the backup is complete: 12 files" in checked.stdout
        assert "There is already data here" in checked.stdout
        if running:
            refused = storage(server, "restore", "kept", "--force")
            assert refused.returncode == 1 and "stop it first" in refused.stderr
            return
        refused = storage(server, "restore", "kept")
        assert refused.returncode == 1 and "--force" in refused.stderr
        restored = storage(server, "restore", "kept", "--force")
        assert restored.returncode == 0 and "12 variants" in restored.stdout
        server.start()
        for image_id, before in images.items():
            assert variants(server, image_id) == before
        assert "Traceback" not in server.log.read_text()


class Readers:
    """Reads every variant over and over, at most 100 in a second; each answer must be the right bytes."""

    def __init__(self, server: ServerProcess, images: dict[str, dict[str, bytes]]) -> None:
        self.wrong: list[object] = []
        self.read = 0
        self._server, self._images = server, images
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Readers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=30, follow_redirects=True) as http:
            while not self._stop.is_set():
                for image_id, size in [(image_id, size) for image_id in self._images for size in SIZES]:
                    if self._stop.wait(0.01):
                        return
                    try:
                        address = f"{self._server.url}/api/v1/images/{image_id}/direct"
                        answer = http.get(address, params={"size": size})
                    except httpx.HTTPError:
                        continue  # the server was killed
                    self.read += 1
                    if answer.status_code != 200 or answer.content != self._images[image_id][size]:
                        self.wrong.append((image_id, size, answer.status_code, answer.text[:200]))


def test_migration_that_is_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, rounds=4, seed=6)


@pytest.mark.torture
def test_migration_that_is_killed_fifty_times_loses_nothing(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, rounds=50, seed=50)


def kill_and_go_on(tmp_path: Path, *, rounds: int, seed: int) -> None:
    """Half of the way there, the rest of it back, killed in each round; then to its end."""
    chance = random.Random(seed)
    server = TwoStorages(tmp_path)
    with server:
        images = completed(server, 20)
        with Readers(server, images) as readers:
            for turn in range(rounds):
                begin_and_kill(server, "other" if turn < rounds // 2 else "local", chance.uniform(0, 0.05))
                server.start()
        assert readers.wrong == []
        assert readers.read >= rounds
        for image_id in list(images)[::4]:  # wherever the last kill left them
            gone = server.http.delete(f"{server.url}/api/v1/images/{image_id}", headers=bearer())
            assert (gone.status_code, gone.json()["files_removed"]) == (200, 4)
            del images[image_id]
            assert [path for name in ("storage", "other") for path in files(tmp_path / name) if image_id in path] == []
        done = storage(server, "migrate", "--to", "other")
        assert done.returncode == 0, done.stderr
        whole(server)
        assert files(tmp_path / "storage") == set()
        assert len(files(tmp_path / "other")) == len(images) * 4
        for image_id, before in images.items():
            assert variants(server, image_id) == before
        assert "Traceback" not in server.log.read_text()


def begin_and_kill(server: ServerProcess, to: str, seconds: float) -> None:
    """Kill it so long after the first image has moved."""
    token = (server.folder / "data" / "operator_token").read_text().strip()
    address, headers = f"{server.url}/api/v1/operator/storage", {"Authorization": f"Bearer {token}"}
    begun = server.http.post(f"{address}/migrate", json={"to": to}, headers=headers)
    assert begun.status_code == 202

    def moved() -> bool:
        task = server.http.get(f"{address}/task", headers=headers).json()
        return bool(task["counts"].get("images")) or task["state"] != "running"

    until(moved)
    time.sleep(seconds)  # the moment of the kill is what is tested
    server.signal(signal.SIGKILL)
    server.ended()


def test_ctrl_c_ends_the_command_and_the_work(tmp_path: Path) -> None:
    with TwoStorages(tmp_path) as server:
        uploaded(server, 24)
        moving = moving_to_other(server)
        until(lambda: files(tmp_path / "other"))
        moving.send_signal(signal.SIGINT)
        _, said = moving.communicate(timeout=seconds(60))
        if moving.returncode != 0:  # it may have been over
            assert (moving.returncode, said) == (130, "imgsvc: migrate was cancelled. Run it again to continue.\n")
        assert storage(server, "migrate", "--to", "other").returncode == 0
        whole(server)


def test_ctrl_c_without_a_service(tmp_path: Path) -> None:
    with TwoStorages(tmp_path) as server:
        images = uploaded(server, 24)
        before = {image_id: variants(server, image_id) for image_id in images[::8]}
        server.stop()
        moving = moving_to_other(server)
        until(lambda: files(tmp_path / "other"))
        moving.send_signal(signal.SIGINT)
        _, said = moving.communicate(timeout=seconds(60))
        if moving.returncode != 0:
            assert (moving.returncode, said) == (130, "imgsvc: migrate was cancelled. Run it again to continue.\n")
        server.start()
        assert {image_id: variants(server, image_id) for image_id in before} == before
        assert storage(server, "migrate", "--to", "other").returncode == 0
        whole(server)  # each of them, by its digests


def test_full_disk_fails_cleanly_and_leaves_the_former_backup(tmp_path: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))

    with InlineServer(tmp_path) as server:
        completed(server, 2)
        assert server.stop() == 0
        assert storage(server, "backup", "kept").returncode == 0
        manifest = (tmp_path / "kept/manifest.json").read_text()
        server.start()
        job = server.job_ended(server.upload(make.noise(1200, 900)).json()["job_id"])
        assert max(len(data) for data in variants(server, job["image_id"]).values()) > 600_000
        assert server.stop() == 0
        command = [sys.executable, "-m", server.module, "storage", "backup", "kept"]
        full = subprocess.run(
            command, cwd=tmp_path, env=server.environ, capture_output=True, text=True, preexec_fn=small_files
        )
        assert (full.returncode, full.stdout) == (1, "")
        assert "could not be written: File too large" in full.stderr and "Traceback" not in full.stderr
        assert (tmp_path / "kept/manifest.json").read_text() == manifest
        assert storage(server, "restore", "kept", "--dry-run").returncode == 0
        assert storage(server, "backup", "kept").returncode == 0
        assert storage(server, "restore", "kept", "--dry-run").returncode == 0


def test_backup_under_load_of_a_server_that_is_then_killed(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    receipts: list[str] = []
    stop = threading.Event()

    def load() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            receipts.append(server.upload(make.jpeg(300, 200, number)).json()["job_id"])

    with InlineServer(one) as server:
        images = completed(server, 5)
        thread = threading.Thread(target=load)
        thread.start()
        until(lambda: len(receipts) > 5)
        accepted = list(receipts)
        kept = storage(server, "backup", str(tmp_path / "backup"))
        stop.set()
        thread.join()
        server.signal(signal.SIGKILL)
        server.ended()
    assert kept.returncode == 0, kept.stdout + kept.stderr
    other = InlineServer(two)
    restored = storage(other, "restore", str(tmp_path / "backup"))
    assert restored.returncode == 0, restored.stderr
    with other:
        for image_id, before in images.items():
            assert variants(other, image_id) == before
        for job_id in accepted:
            job = other.job_ended(job_id)
            assert job["status"] == "completed"
            assert hashlib.sha256(variants(other, job["image_id"])["large"]).digest()
        whole(other)
