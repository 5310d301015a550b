"""Two services after each other on one folder: what the first left half done, the second ends."""

import json
import os
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from fixtures import make
from imgsvc.jobs.lock import DataFolderInUse
from tests.conftest import WAIT_SECONDS, Service, service, with_workers
from tests.support.speed import within

PHOTO = make.jpeg(160, 120)
SIZES = ("thumbnail", "medium", "large", "original")
THUMBNAIL = "processed/thumbnail/{0}_thumbnail.webp"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


def change(folder: Path, job_id: str, **columns: Any) -> None:
    """Edit a row while no service runs."""
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    with closing(sqlite3.connect(folder / "imgsvc.db")) as db, db:
        changed = db.execute(f"UPDATE processing_jobs SET {assignments} WHERE job_id = :id", {"id": job_id, **columns})
        assert changed.rowcount == 1


def row(folder: Path, job_id: str) -> dict[str, Any]:
    with closing(sqlite3.connect(folder / "imgsvc.db")) as db:
        db.row_factory = sqlite3.Row
        return dict(db.execute("SELECT * FROM processing_jobs WHERE job_id = ?", [job_id]).fetchone())


def stage(folder: Path, name: str, data: bytes = PHOTO) -> None:
    (folder / "staging" / name).write_bytes(data)


async def completed(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A job that ended well, and its bytes."""
    async with service(folder) as s:
        job = await s.completed(PHOTO)
        return job, await variants(s, job)


async def waiting(folder: Path, **sections: dict[str, Any]) -> str:
    """The id of a job that was accepted and never begun."""
    async with service(folder, **sections) as s:
        s.state.jobs.queue.hold()
        job_id = str((await s.upload(PHOTO)).json()["job_id"])
    assert row(folder, job_id)["status"] == "pending"
    return job_id


async def variants(s: Service, job: dict[str, Any]) -> dict[str, bytes]:
    return {size: await s.variant(job["image_id"], size) for size in SIZES}


async def ended(s: Service, job_id: str) -> dict[str, Any]:
    with within(WAIT_SECONDS):
        while (job := await s.job(job_id))["status"] not in ("completed", "failed"):
            await anyio.sleep(0.02)
    return job


async def until(reached: Callable[[], bool]) -> None:
    with within(WAIT_SECONDS):
        while not reached():
            await anyio.sleep(0.02)


async def test_staged_file_without_a_row_is_not_left_in_staging(folder: Path) -> None:
    job_id, orphan = await waiting(folder), str(uuid.uuid4())
    stage(folder, orphan)
    stage(folder, f"{uuid.uuid4()}.part", b"")
    async with service(folder) as s:
        await until(lambda: set(s.staged()) <= {job_id})  # the job itself may have been done meanwhile
    async with service(folder) as s:
        assert (await ended(s, job_id))["status"] == "completed"
        await until(lambda: s.staged() == [])
    assert [path.name for path in (folder / "orphaned").iterdir()] == [orphan]


async def test_source_left_behind_by_a_completed_job_is_removed(folder: Path) -> None:
    job, made = await completed(folder)
    stage(folder, job["job_id"])
    change(folder, job["job_id"], staging_path=job["job_id"])
    async with service(folder) as s:
        await until(lambda: row(folder, job["job_id"])["staging_path"] is None)
        assert s.staged() == []
        assert await s.job(job["job_id"]) == job
        assert await variants(s, job) == made


@pytest.mark.parametrize("kept", ["nothing", "the preview", "every file", "half a file"])
async def test_interrupted_run_is_replayed_to_the_same_bytes(folder: Path, kept: str) -> None:
    job, made = await completed(folder)
    job_id, before = job["job_id"], row(folder, job["job_id"])
    thumbnail = {"thumbnail": THUMBNAIL.format(job["image_id"])}
    previewed = kept == "the preview"
    change(
        folder,
        job_id,
        status="processing",
        queue=None,
        starts=1,
        completed_at=None,
        staging_path=job_id,
        preview="done" if previewed else "wanted",
        processed_paths=json.dumps(thumbnail if previewed else {}),
        processing_metadata=before["processing_metadata"] if previewed else "{}",
    )
    stage(folder, job_id)
    for path in (folder / "storage").rglob("*.webp"):
        if kept == "half a file":
            path.with_name(f".{path.name}.partial").write_bytes(path.read_bytes()[:20])
        if kept in ("nothing", "half a file") or (previewed and "_thumbnail" not in path.name):
            path.unlink()
    async with (with_workers if kept == "nothing" else service)(folder) as s:
        replayed = await ended(s, job_id)
        assert (replayed["status"], replayed["error"], replayed["attempts"]) == ("completed", None, 0)
        assert replayed["started_at"] == job["started_at"]
        assert await variants(s, replayed) == made
        after = row(folder, job_id)
        for column in ("processed_paths", "processing_metadata", "sha256", "image_id"):
            assert after[column] == before[column]
        assert after["run"] > before["run"]
        await until(lambda: s.staged() == [])
        stored = [name for name in s.stored() if not name.startswith(".health")]
        assert len(stored) == len(SIZES)


async def test_replay_does_not_use_up_attempts_until_the_tenth_start(folder: Path) -> None:
    job_id = await waiting(folder)
    change(folder, job_id, status="processing", queue=None, starts=9)
    async with service(folder) as s:
        job = await ended(s, job_id)
        assert (job["status"], job["attempts"]) == ("completed", 0)
    assert row(folder, job_id)["starts"] == 0


async def test_tenth_interrupted_start_gives_up_and_keeps_the_source(folder: Path) -> None:
    job_id = await waiting(folder)
    change(folder, job_id, status="processing", queue=None, starts=10)
    stage(folder, f"{uuid.uuid4()}.part")
    async with service(folder) as s:
        job = await s.job(job_id)
        assert (job["status"], job["error_code"], job["retryable"]) == ("failed", "interrupted", True)
        assert (job["attempts"], job["ready"]) == (0, [])
        assert "10 times" in job["error"]
        response = await s.http.get(f"/api/v1/images/jobs/{job_id}/result")
        assert response.json()["error"] == "Processing not completed. Current status: failed"
        await until(lambda: s.staged() == [job_id])
    assert (folder / "staging" / job_id).read_bytes() == PHOTO
    with closing(sqlite3.connect(folder / "imgsvc.db")) as db:
        kinds = [kind for (kind,) in db.execute("SELECT event_type FROM image_upload_events ORDER BY id")]
    assert kinds[-1] == "failed"


async def test_retry_set_far_into_the_future_is_clamped(folder: Path) -> None:
    job_id = await waiting(folder)
    far = "2999-01-01T00:00:00.000000+00:00"
    later = {"status": "retrying", "queue": None, "attempt_count": 1, "next_attempt_at": far, "last_error": "x"}
    change(folder, job_id, **later)
    async with service(folder, jobs={"retry_delay_seconds": 60}) as s:
        job = await s.job(job_id)
        assert job["status"] == "retrying"
        delay = datetime.fromisoformat(job["next_attempt_at"]) - datetime.now().astimezone()
        assert timedelta(seconds=0) < delay <= timedelta(seconds=60)
    async with service(folder, jobs={"retry_delay_seconds": 0.1}) as s:
        job = await ended(s, job_id)
        assert (job["status"], job["attempts"], job["next_attempt_at"]) == ("completed", 1, None)


async def test_accepted_job_whose_source_is_gone_says_so(folder: Path) -> None:
    job_id = await waiting(folder)
    (folder / "staging" / job_id).unlink()
    async with service(folder) as s:
        job = await ended(s, job_id)
        assert (job["status"], job["error_code"], job["retryable"]) == ("failed", "source_missing", True)
        assert str(folder) not in job["error"]


async def test_settings_changed_between_accept_and_replay_change_nothing(folder: Path) -> None:
    job, made = await completed(folder)
    job_id = await waiting(folder)
    changed = {"sizes": {"thumbnail": 20, "tiny": 10}, "webp_quality": 5, "webp_effort": 0, "max_pixels": 100}
    async with service(folder, images=changed) as s:
        replayed = await ended(s, job_id)
        assert replayed["ready"] == job["ready"]
        assert await variants(s, replayed) == made
        assert await variants(s, job) == made
        response = await s.http.get(f"/api/v1/images/{job['image_id']}", params={"size": "tiny"})
        assert response.json()["error"] == "Size 'tiny' not available"


async def test_folder_in_use_is_refused_by_the_holders_pid(folder: Path) -> None:
    async with service(folder) as s:
        with pytest.raises(DataFolderInUse, match=rf"in use by process {os.getpid()}$"):
            async with service(folder, jobs={"lock_wait_seconds": 0}):
                pass
        assert (await s.completed(PHOTO))["status"] == "completed"


async def test_successor_waits_for_its_predecessor(folder: Path) -> None:
    up = anyio.Event()

    async def successor() -> None:
        async with service(folder) as s:
            assert (await s.job(job_id))["status"] == "completed"
            up.set()

    async with anyio.create_task_group() as group:
        async with service(folder) as s:
            group.start_soon(successor)
            job_id = (await s.completed(PHOTO))["job_id"]
            assert not up.is_set()
        with within(WAIT_SECONDS):
            await up.wait()
