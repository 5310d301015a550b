"""A data folder of each released version, opened by this program, goes on as if nothing had happened.

The folders are `fixtures/older/*.tar.gz`. `fixtures/older_version.py` says what is in them and makes the next one.
"""

import asyncio
import hashlib
import json
import sqlite3
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from fixtures import older_version
from fixtures.older_version import KEY, TITLE
from imgsvc import testing
from imgsvc.jobs.table.database import MIGRATIONS, open_for_writing
from tests.conftest import Service
from tests.support.archives import unpack_into
from tests.support.invariants import Places, assert_sound
from tests.support.maintenance import carried_out
from tests.support.older_database import back_to_schema
from tests.support.processes import run

RELEASES = sorted(older_version.FOLDER.glob("*.tar.gz"))
SCHEMA = 3  # of 0.1.0
MAX_BYTES = 300_000
ENDS = ("stopped", "killed")
MOMENTS = {
    "processing_jobs": ("created_at", "started_at", "completed_at", "next_attempt_at", "failed_at", "deleted_at"),
    "image_upload_events": ("created_at",),
    "upload_rate_limits": ("window_start",),
}
STATEMENTS = files("imgsvc.jobs.table") / "migrations"


def unpack(release: Path, end: str, folder: Path) -> dict[str, Any]:
    """The data folder as `folder/data`, and what that version answered of the images in it."""
    with tarfile.open(release) as archive:
        unpack_into(folder, archive)
    (folder / end / "data").rename(folder / "data")
    (folder / "data/storage" / older_version.BLOCKED).unlink(missing_ok=True)  # the reason for another attempt
    make_recent(folder / "data" / "imgsvc.db")
    return answers_there(folder)


def answers_there(folder: Path) -> dict[str, Any]:
    """What that version answered of the images that the database has."""
    answers: dict[str, Any] = json.loads((folder / "answers.json").read_text())
    with closing(sqlite3.connect(folder / "data" / "imgsvc.db")) as db:
        there = {job_id for (job_id,) in db.execute("SELECT job_id FROM processing_jobs")}
    return {name: one for name, one in answers.items() if one["receipt"]["job_id"] in there}


def make_recent(database: Path) -> None:
    """Move all times, so that the newest is a minute ago: what is kept for a day must still be there."""
    with closing(sqlite3.connect(database)) as db, db:
        (newest,) = db.execute("SELECT max(created_at) FROM image_upload_events").fetchone()
        later = datetime.now(UTC) - timedelta(minutes=1) - datetime.fromisoformat(newest)
        db.create_function("later", 1, lambda text: text and moved(text, later))
        for table, columns in MOMENTS.items():
            db.execute(f"UPDATE {table} SET {', '.join(f'{name} = later({name})' for name in columns)}")


def moved(text: str, by: timedelta) -> str:
    return (datetime.fromisoformat(text) + by).isoformat(timespec="microseconds")


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Service]:
    settings = testing.settings_in(folder / "data")
    async with testing.serving(settings) as (app, http):
        del http.headers["Authorization"]
        yield Service(app, settings, http)


def without_times(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: without_times(one) for name, one in answer.items() if not name.endswith("_at")}
    return answer


def assert_still_says(answer: Any, earlier: Any, place: str) -> None:
    """What was said is said again, times aside; more may be said now."""
    if isinstance(earlier, dict):
        assert isinstance(answer, dict), place
        for name, one in earlier.items():
            assert name in answer, f"{place}.{name}"
            assert_still_says(answer[name], one, f"{place}.{name}")
    else:
        assert answer == earlier, place


async def assert_answers_as_before(s: Service, name: str, earlier: dict[str, Any]) -> None:
    receipt = earlier["receipt"]
    job, image = receipt["status_url"], f"/api/v1/images/{receipt['image_id']}/all"
    for page, address in {"job": job, "result": f"{job}/result", "all": image}.items():
        now, body = await s.http.get(address), earlier[page]["body"]
        assert now.status_code == earlier[page]["status"], (name, page)
        if now.is_success:
            assert_still_says(now.json(), without_times(body), f"{name} {page}")
        else:
            assert now.json()["code"] == body["code"]


async def digests(s: Service, image_id: str, sizes: list[str]) -> dict[str, str]:
    return {size: hashlib.sha256(await s.variant(image_id, size)).hexdigest() for size in sizes}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name.removesuffix(".tar.gz"))
async def test_folder_of_an_older_version_goes_on(release: Path, end: str, tmp_path: Path) -> None:
    answers = unpack(release, end, tmp_path)
    more = int("given up" in answers)  # from 0.2.0 on
    assert len(answers) == {"stopped": 4 + more, "killed": 6 + 2 * more}[end]
    secrets = [tmp_path / "data" / name for name in ("jwt_secret", "operator_token")]
    earlier_secrets = [file.read_text() for file in secrets]
    async with opened(tmp_path) as s:
        for name, earlier in answers.items():
            receipt = earlier["receipt"]
            if name in ("previewed", "waiting", "retrying"):
                assert earlier["job"]["body"]["status"] in ("pending", "processing", "retrying")
                await finished_now(s, earlier)
            else:
                await assert_answers_as_before(s, name, earlier)
            variants = earlier["variants"]
            assert await digests(s, receipt["image_id"], list(variants)) == variants, name
        if more:
            await tried_again(s, answers["given up"])
        await repeated_upload_gets_the_first_receipt(s, answers["turned"])
        await deletes_and_accepts(s, answers)
        report = await carried_out(s, "verify", digests=True, grace_seconds=0)
        assert (report["state"], report["well"], report["findings"]) == ("done", True, [])
        assert (await s.http.get("/api/v1/health")).json()["status"] == "healthy"
    assert [file.read_text() for file in secrets] == earlier_secrets
    assert_sound(Places(tmp_path / "data" / "imgsvc.db", {"local": tmp_path / "data" / "storage"}), "settled")


async def finished_now(s: Service, earlier: dict[str, Any]) -> None:
    """A job that the older version had begun or not: it is completed, from the bytes of its upload."""
    receipt = earlier["receipt"]
    while (job := await s.http.get(receipt["status_url"], headers={"Prefer": "wait=30"})).json()[
        "status"
    ] != "completed":
        assert job.json()["status"] in ("pending", "processing", "retrying"), job.text
    assert job.json()["ready"] == ["original", "large", "medium", "thumbnail"]
    result = (await s.http.get(f"{receipt['status_url']}/result")).json()
    assert result["metadata"]["original_dimensions"] == {"width": 400, "height": 300}


async def tried_again(s: Service, earlier: dict[str, Any]) -> None:
    """A job that the older version had given up, by the operator."""
    assert earlier["job"]["body"]["retryable"]
    job_id = earlier["receipt"]["job_id"]
    answer = await s.http.post(f"/api/v1/operator/jobs/{job_id}/retry", headers=s.operator)
    assert answer.status_code == 202, answer.text
    await finished_now(s, earlier)


async def repeated_upload_gets_the_first_receipt(s: Service, earlier: dict[str, Any]) -> None:
    fields = {"bucket": "holiday/2026", "metadata": json.dumps(TITLE)}
    headers = s.bearer("alice") | {"Idempotency-Key": KEY}
    files = {"file": ("picture", older_version.turned())}
    again = await s.http.post("/api/v1/images/upload", data=fields, files=files, headers=headers)
    assert (again.status_code, again.json()) == (202, earlier["receipt"])
    assert again.headers["idempotency-replayed"] == "true"


async def deletes_and_accepts(s: Service, answers: dict[str, Any]) -> None:
    """The owner of an older image can delete it, another user can't, and new uploads are taken."""
    address = f"/api/v1/images/{answers['transparent']['receipt']['image_id']}"
    assert (await s.http.delete(address, headers=s.bearer("alice"))).status_code == 403
    assert (await s.http.delete(address, headers=s.bearer("bob"))).status_code == 200
    await s.completed(older_version.unfinished(), bucket="holiday/2026")


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name.removesuffix(".tar.gz"))
async def test_backup_of_an_older_version_is_restored(release: Path, tmp_path: Path) -> None:
    with tarfile.open(release) as archive:
        unpack_into(tmp_path, archive)
    done = await asyncio.to_thread(run, ("storage", "restore", "backup"), folder=tmp_path, environ={})
    assert done.returncode == 0, done.stdout + done.stderr
    make_recent(tmp_path / "data" / "imgsvc.db")
    answers = answers_there(tmp_path)
    assert set(answers) - {"given up"} == {"turned", "transparent", "damaged", "deleted"}
    async with opened(tmp_path) as s:
        for name, earlier in answers.items():
            await assert_answers_as_before(s, name, earlier)
            variants = earlier["variants"]
            assert await digests(s, earlier["receipt"]["image_id"], list(variants)) == variants, name
        await repeated_upload_gets_the_first_receipt(s, answers["turned"])


@pytest.mark.process
@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def test_commands_work_on_the_folder_of_an_older_version(release: Path, tmp_path: Path) -> None:
    """Without a service: `storage verify` migrates it and finds nothing wrong, and tokens are made with its secret."""
    unpack(release, "killed", tmp_path)
    for arguments in (("storage", "verify", "--digests", "--grace", "0"), ("token", "--sub", "alice")):
        done = run(arguments, folder=tmp_path, environ={})
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def test_archive_is_small_and_names_no_place(release: Path, tmp_path: Path) -> None:
    assert release.stat().st_size <= MAX_BYTES
    with tarfile.open(release) as archive:
        unpack_into(tmp_path, archive)
    for file in filter(Path.is_file, tmp_path.rglob("*")):
        assert not [place for place in (b"/home/", b"/root/", b"/tmp/") if place in file.read_bytes()], file


def schema(database: Path) -> dict[str, str]:
    """{name: statement} of everything in it."""
    with closing(sqlite3.connect(database)) as db:
        rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    return dict(rows)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
async def test_database_of_each_earlier_schema_becomes_the_newest(version: int, tmp_path: Path) -> None:
    answers = unpack(older_version.FOLDER / "0.1.0.tar.gz", "stopped", tmp_path)
    database = tmp_path / "data" / "imgsvc.db"
    with closing(sqlite3.connect(database)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        for number in range(SCHEMA + 1, version + 1):
            db.executescript((STATEMENTS / MIGRATIONS[number - 1]).read_text())
            db.execute(f"PRAGMA user_version = {number}")
        back_to_schema(db, min(version, SCHEMA))
    async with opened(tmp_path) as s:
        for name, earlier in answers.items():
            await assert_answers_as_before(s, name, earlier)
        health = (await s.http.get("/api/v1/health")).json()
        assert health["status"] == "healthy", health
    new = tmp_path / "new"
    async with opened(new):
        assert schema(database) == schema(new / "data" / "imgsvc.db")


async def test_tables_of_others_in_the_file_are_kept(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "imgsvc.db")) as db, db:
        db.execute("CREATE TABLE others (one)")
    await (await open_for_writing(tmp_path / "imgsvc.db")).close()
    assert {"others", "processing_jobs"} <= schema(tmp_path / "imgsvc.db").keys()


@pytest.mark.process
def test_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    """The way back after an upgrade: the start and a command say what to do, and nothing is written."""
    unpack(RELEASES[-1], "stopped", tmp_path)
    database = tmp_path / "data" / "imgsvc.db"
    assert run(("storage", "verify"), folder=tmp_path, environ={}).returncode == 0  # migrates it
    with closing(sqlite3.connect(database)) as db:
        db.execute("PRAGMA user_version = 99")
    before = database.read_bytes()
    for arguments in (("serve", "--port", "0"), ("storage", "verify")):
        done = run(arguments, folder=tmp_path, environ={})
        assert done.returncode != 0
        (said,) = [line for line in done.stderr.splitlines() if "later version" in line]
        assert "99" in said and "restore the backup from before the upgrade" in said
        assert "Traceback" not in done.stderr
    assert database.read_bytes() == before
