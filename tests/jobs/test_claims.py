"""What a claim writes: it is made twice for each image, for the preview and for the render."""

import sqlite3
from contextlib import closing
from pathlib import Path

from imgsvc.jobs.table.sql import QUERIES
from tests.jobs.test_fairness import accept, claim, table
from tests.support.many_jobs import fill
from tests.support.new_jobs import new_job


def written_indexes(db: sqlite3.Connection, query: str) -> set[str]:
    """The indexes into which SQLite's program of this query inserts."""
    by_page = {page: name for name, page in db.execute("SELECT name, rootpage FROM sqlite_master")}
    program = db.execute(f"EXPLAIN {QUERIES[query]}", {"job_id": "", "queue": "", "now": ""}).fetchall()
    opened = {cursor: by_page[page] for _, code, cursor, page, *_ in program if code == "OpenWrite"}
    return {opened[cursor] for _, code, cursor, *_ in program if code == "IdxInsert" and cursor in opened}


def test_claim_after_a_preview_leaves_the_lists_alone(tmp_path: Path) -> None:
    fill(tmp_path / "imgsvc.db", 1)
    with closing(sqlite3.connect(tmp_path / "imgsvc.db")) as db:
        assert {"jobs_waiting", "jobs_running", "images_of_user"} < written_indexes(db, "claim")
        assert written_indexes(db, "claim_again") == {"jobs_waiting"}


async def test_claim_after_a_preview_is_a_run_of_its_own(tmp_path: Path) -> None:
    async with table(tmp_path) as t:
        await accept(t, new_job("alice", preview_bytes=100))
        first = await claim(t, "previews")
        assert await t.end_preview(first, "done", {}, {})
        second = await claim(t, "renders")
        assert (second.job_id, second.status, second.queue) == (first.job_id, "processing", None)
        assert (second.run, second.starts, second.started_at) == (first.run + 1, 1, first.started_at)
        assert await t.claim("renders", 1 << 30, nothing_running=False) is None
