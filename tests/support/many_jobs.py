"""A data folder with a great many jobs, like that of a service in use for years.

`python -m tests.support.many_jobs FOLDER`.

Rows and audit events are written in one go, past the writer, and no file is stored: for measuring reads only.
"""

import argparse
import asyncio
import json
import random
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from imgsvc.jobs.table import usage
from imgsvc.jobs.table.database import open_for_writing
from imgsvc.jobs.table.model import as_text, now
from imgsvc.settings.jobs import Images

Row = dict[str, Any]  # a value for each column
USERS, BUCKET = 20_000, "photos"
STATES, ENDS = ("completed", "failed", "retrying", "pending"), (95_000, 4_900, 50, 50)
DAYS, SOURCE_KEPT = 30, timedelta(hours=23)
EVENTS_OF_JOB = ("accepted", "processing", "completed")
SUMS = (
    "UPDATE job_sums SET total = (SELECT count(*) FROM processing_jobs WHERE status = name AND deleted_at IS NULL) "
    "WHERE kind = 'jobs'"
)
BUCKETS = ("photos", "photos", "photos", "team/a", "team/b")
NAMES = ("IMG", "DSC", "Holiday")
VARIANTS = {"thumbnail": (150, 4_000), "medium": (600, 40_000), "large": (1200, 140_000), "original": (4096, 900_000)}
PATHS = json.dumps({name: f"processed/{name}/ID_{name}.webp" for name in VARIANTS})  # ID: that of the image


def _measured(variants: dict[str, tuple[int, int]]) -> str:
    made = {
        name: {"width": side, "height": side * 3 // 4, "size_bytes": size, "sha256": "0" * 64, "format": "webp"}
        for name, (side, size) in variants.items()
    }
    sides = {"width": 4000, "height": 3000}
    placeholders = {"dominant_color": "#808080", "thumbhash": "HwgKLJpwdndwd3d3d3aQgAn4hw=="}
    return json.dumps({**placeholders, "original_dimensions": sides, "variants": made})


MEASURED, NOTHING_MEASURED = _measured(VARIANTS), _measured({})


def fill(path: Path, jobs: int, *, half: bool = False, only_completed: bool = False) -> None:
    """Make the database at `path` with so many jobs, each with its events; 95 in 100 are completed.

    `half`: every second job is that of one user, `user-0`. `only_completed`: all of them are, or were and are deleted.
    """
    ends = (1, 0, 0, 0) if only_completed else ENDS
    path.parent.mkdir(parents=True, exist_ok=True)
    asyncio.run(_schema(path))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        # Cheap to repeat: what was cut short is made again. Indexes are built, and sums made, once for all rows.
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -400000;")
        dropped = _drop("index", db) + _drop("trigger", db)
        db.execute("BEGIN")
        rows = _jobs(jobs, half, ends)
        columns = ", ".join(first := next(rows))
        marks = ", ".join(f":{name}" for name in first)
        db.executemany(f"INSERT INTO processing_jobs ({columns}) VALUES ({marks})", chain([first], rows))
        db.execute("DELETE FROM image_upload_events")
        for kind in EVENTS_OF_JOB:
            db.execute(
                "INSERT INTO image_upload_events (event_type, image_id, job_id, metadata, created_at) "
                "SELECT ?, image_id, job_id, '{\"run\": 1}', created_at FROM processing_jobs",
                [kind],
            )
        db.executemany("INSERT INTO upload_rate_limits VALUES (?, ?, ?, ?)", _windows())
        db.execute("COMMIT")
        for statement in dropped:
            db.execute(statement)
        db.execute(SUMS)
        db.execute("UPDATE job_counting SET bytes_upto = 0, usage_upto = 0, minutes_from = ?", [as_text(now())])
        db.execute("PRAGMA journal_mode = WAL")
    asyncio.run(_count(path))


async def _count(path: Path) -> None:
    db = await open_for_writing(path)
    while (await usage.count_minutes(db))[1]:
        pass
    while await usage.count_bytes(db):
        pass
    while await usage.count_usage(db):
        pass
    await db.close()


async def _schema(path: Path) -> None:
    db = await open_for_writing(path)
    await db.close()


def _drop(kind: str, db: sqlite3.Connection) -> list[str]:
    """Drop all of a kind that can be dropped; returns the statements that make them again."""
    found = db.execute("SELECT name, sql FROM sqlite_master WHERE type = ? AND sql IS NOT NULL", [kind]).fetchall()
    for name, _ in found:
        db.execute(f"DROP {kind} {name}")
    return [statement for _, statement in found]


def _jobs(count: int, half: bool, ends: Sequence[int]) -> Iterator[Row]:
    chance = random.Random(7)
    recipe, end = Images().recipe.to_json(), now()
    step = timedelta(days=DAYS) / count
    for number in range(count):
        user = 0 if half and number % 2 else number % USERS
        bucket = BUCKETS[number // 2 % len(BUCKETS)] if half else BUCKET
        status = chance.choices(STATES, ends)[0]
        yield {"recipe": recipe, **_job(chance, end - step * (count - number), end, number, (user, bucket), status)}


def _job(
    chance: random.Random, created: datetime, end: datetime, number: int, owner: tuple[int, str], status: str
) -> Row:
    user, bucket = owner
    job_id, image_id = (str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(2))
    deleted = status == "completed" and chance.random() < 0.05
    made = status == "completed" and not deleted
    name = f"{NAMES[number // 2 % len(NAMES)]}_{number:07}.jpg"
    return {
        "job_id": job_id,
        "image_id": image_id,
        "storage_bucket": bucket,
        "processed_paths": PATHS.replace("ID", image_id) if made else "{}",
        "processing_metadata": MEASURED if made else NOTHING_MEASURED,
        "user_id": None if deleted else f"user-{user}",
        "org_id": None if deleted else "default-org",
        "original_filename": None if deleted else name,
        "folded_name": None if deleted else name.lower(),
        "client_metadata": "{}",
        "trace_id": f"trace-{number}",
        "mime_type": "image/jpeg",
        "content_length": 2_500_000,
        "sha256": f"{number // 4:064x}",
        "pixels": 12_000_000,
        "preview_bytes": 8_000_000,
        "render_bytes": 90_000_000,
        "storage_backend": "local",
        "turn": number // USERS,
        "preview": "wanted",
        **_progress(chance, job_id, created, end, status, deleted=deleted),
    }


def _progress(
    chance: random.Random, job_id: str, created: datetime, end: datetime, status: str, *, deleted: bool
) -> Row:
    ended, text = as_text(created + timedelta(seconds=chance.uniform(0.2, 4))), as_text(created)
    done, failed, waiting = status == "completed", status == "failed", status == "pending"
    over = failed and created < end - SOURCE_KEPT  # housekeeping has removed its upload
    troubled = failed or status == "retrying"
    return {
        "status": status,
        "staging_path": None if done or over else job_id,
        "attempt_count": 0 if done else 1,
        "max_retries": 3,
        "last_error": "The image could not be stored." if troubled else None,
        "created_at": text,
        "started_at": None if waiting else text,
        "completed_at": ended if done else None,
        "error_code": "storage_error" if troubled else None,
        "retryable": int(not over) if troubled else None,
        "next_attempt_at": as_text(created + timedelta(days=DAYS)) if status == "retrying" else None,
        "failed_at": ended if failed else None,
        "deleted_at": ended if deleted else None,
        "queue": chance.choice(("previews", "renders")) if waiting else None,
    }


def _windows() -> Iterator[tuple[str, str, str, int]]:
    start = as_text(now())
    for number in range(USERS):
        yield "default-org", f"user-{number}", start, number % 51


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="data folder to make; must not hold a database")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    given = parser.parse_args()
    path = given.folder / "imgsvc.db"
    if path.exists():
        parser.error(f"{path} is there already")
    began = time.monotonic()
    fill(path, given.jobs)
    print(f"{given.jobs:,} jobs in {path} ({path.stat().st_size >> 20} MB), {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
