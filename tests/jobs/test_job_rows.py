"""A row becomes a job by the places of its columns, whichever schema it was written by."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from imgsvc.jobs.table.database import MIGRATIONS
from imgsvc.jobs.table.model import Job
from imgsvc.jobs.table.sql import migration
from tests.support.many_jobs import fill

RENAMED = {
    "paths_text": "processed_paths",
    "measured_text": "processing_metadata",
    "client_text": "client_metadata",
    "recipe_text": "recipe",
}


def rows(path: Path) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        return db.execute("SELECT * FROM processing_jobs").fetchall()


def test_each_field_is_its_column(tmp_path: Path) -> None:
    fill(tmp_path / "imgsvc.db", 50)
    for row in rows(tmp_path / "imgsvc.db"):
        job = Job.of(row)
        for name in Job.__dataclass_fields__:
            there = row[RENAMED.get(name, name)]
            assert getattr(job, name) == (bool(there) if name == "retryable" else there), name


def test_row_of_the_first_schema(tmp_path: Path) -> None:
    fill(tmp_path / "imgsvc.db", 1)
    (now,) = rows(tmp_path / "imgsvc.db")
    with closing(sqlite3.connect(":memory:")) as db:
        db.row_factory = sqlite3.Row
        db.executescript(migration(MIGRATIONS[0]))
        columns = [row["name"] for row in db.execute("PRAGMA table_info(processing_jobs)")]
        values = [now[name] for name in columns]
        db.execute(f"INSERT INTO processing_jobs VALUES ({', '.join('?' * len(values))})", values)
        (first,) = db.execute("SELECT * FROM processing_jobs").fetchall()
    job = Job.of(first)
    assert (job.retried_at, job.also_in) == (None, None)
    assert job == Job.of(now)


def test_a_page_of_rows_stops_the_loop_for_a_moment_only(tmp_path: Path) -> None:
    """Beside naming each column once, which is what the names' own lookup made forty times dearer."""
    fill(tmp_path / "imgsvc.db", 500)
    found = rows(tmp_path / "imgsvc.db")

    def seconds(work: Callable[[sqlite3.Row], object]) -> float:
        def once() -> float:
            began = time.perf_counter()
            for row in found:
                work(row)
            return time.perf_counter() - began

        return min(once() for _ in range(5))

    assert seconds(Job.of) < 1.5 * seconds(lambda row: [row[name] for name in row.keys()])  # noqa: SIM118
