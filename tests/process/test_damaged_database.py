"""A database that can't be used: a start ends in one line and status 2, and what is found later makes health say so."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fixtures import make
from imgsvc import Settings
from tests.conftest import Starter
from tests.support.many_jobs import fill
from tests.support.processes import run

MODULE = "tests.support.owner_alone"  # permissions count for root too


def started(path: Path) -> tuple[int, list[str]]:
    """The exit status of `imgsvc serve` on this database, and what it says beside its log."""
    environ = {
        "PATH": "/usr/bin:/bin",
        "DATABASE_PATH": str(path),
        "STORAGE_PATH": str(path.parent / "storage"),
        "IMGSVC_SERVER_PORT": "0",
        "LOG_JSON": "true",
    }
    ran = run(["serve"], folder=Path(__file__).parents[2], environ=environ, module=MODULE)
    return ran.returncode, [line for line in ran.stderr.splitlines() if not line.startswith("{")]


def not_a_database(path: Path) -> None:
    path.write_bytes(b"no database at all\n" * 1000)


def garbage_amid(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 : len(data) // 2] = b"\xaa" * (len(data) // 2 - 4096)
    path.write_bytes(data)


@pytest.mark.process
@pytest.mark.parametrize("harm", [not_a_database, garbage_amid])
def test_start_on_a_damaged_one_is_one_line(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    path = tmp_path / "imgsvc.db"
    fill(path, 200)
    harm(path)
    status, said = started(path)
    assert (status, len(said)) == (2, 1), said
    assert said[0].startswith("imgsvc: ") and str(path) in said[0]


@pytest.mark.process
def test_start_on_a_locked_one_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "imgsvc.db"
    fill(path, 10)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        status, said = started(path)
    assert (status, len(said)) == (2, 1), said
    assert "locked" in said[0]


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [("imgsvc.db", 0o444, "readonly database"), (".", 0o555, "lock: Permission denied")],
    ids=["file", "folder"],
)
def test_start_on_one_that_can_only_be_read_is_one_line(tmp_path: Path, name: str, mode: int, words: str) -> None:
    path = tmp_path / "imgsvc.db"
    fill(path, 10)
    before, usual = path.read_bytes(), (tmp_path / name).stat().st_mode
    (tmp_path / name).chmod(mode)
    status, said = started(path)
    (tmp_path / name).chmod(usual)
    assert (status, len(said)) == (2, 1), said
    assert said[0].startswith("imgsvc: ") and words in said[0]
    assert path.read_bytes() == before


def zero_the_events(settings: Settings) -> None:
    """The root page of an index of jobs, as a failing disk would."""
    path = settings.database.path
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'jobs_recent_failed'").fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))


async def test_page_that_is_damaged_later_is_a_503_and_no_good_health(start: Starter) -> None:
    async with start() as s:
        pass
    zero_the_events(s.settings)
    async with start() as s:
        answer = await s.http.get("/api/v1/health/failed")
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        await s.state.telemetry.health.measure()
        health = await s.http.get("/api/v1/health")
        assert (health.status_code, health.json()["checks"]["database"]["status"]) == (503, "unhealthy")


async def test_damaged_recipe_fails_its_job_once_and_its_page_answers(start: Starter) -> None:
    async with start(jobs={"retry_delay_seconds": 0}) as s:
        done = await s.completed(make.jpeg(640, 480))
        await s.sql("UPDATE processing_jobs SET recipe = '{\"variants\": 5}'")
        page = await s.job(done["job_id"])
        assert (page["status"], sorted(page["ready"])) == ("completed", ["large", "medium", "original", "thumbnail"])
        assert len(await s.variant(done["image_id"], "large")) > 50
        harm = "AFTER INSERT ON processing_jobs BEGIN UPDATE processing_jobs SET recipe = 'x'; END"
        await s.sql(f"CREATE TRIGGER harm {harm}")
        job = await s.ended(await s.upload(make.tiny()))
        assert (job["status"], job["error_code"], job["retryable"]) == ("failed", "row_damaged", False)
        assert job["attempts"] == 1
