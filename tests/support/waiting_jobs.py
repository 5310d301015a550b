"""Uploads that wait in a data folder: one that was sent in, again and again, past the service."""

import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

TOGETHER = 5_000  # rows in one transaction
ACCEPTED = """INSERT INTO image_upload_events (event_type, image_id, job_id, metadata, created_at)
SELECT event_type, :image_id, :job_id, metadata, created_at FROM image_upload_events
WHERE job_id = :first AND event_type = 'accepted'"""


def wait_again(database: Path, job_id: str, count: int, *, preview: bool = False) -> None:
    """Add so many jobs like this one to those that wait, each with its upload. No service may be running.

    They are rendered in one go, unless a `preview` is wanted. The staged upload is one file with many names.
    """
    staging = database.parent / "staging"
    with closing(sqlite3.connect(database)) as db:
        db.row_factory = sqlite3.Row
        (first,) = db.execute("SELECT * FROM processing_jobs WHERE job_id = ?", [job_id]).fetchall()
        turn = db.execute("SELECT max(turn) FROM processing_jobs").fetchone()[0]
        waiting = {"status": "pending", "preview": "none", "queue": "renders", "run": 0, "starts": 0}
        waiting |= {"preview": "wanted", "queue": "previews"} if preview else {}
        names = ", ".join(first.keys())
        marks = ", ".join(f":{name}" for name in first.keys())  # noqa: SIM118  # a Row iterates over its values
        for start in range(0, count, TOGETHER):
            rows = []
            for number in range(start, min(count, start + TOGETHER)):
                one, image = str(uuid.uuid4()), str(uuid.uuid4())
                os.link(staging / job_id, staging / one)
                ids = {"job_id": one, "image_id": image, "staging_path": one, "turn": turn + 1 + number}
                rows.append({**dict(first), **waiting, **ids})
            with db:
                db.executemany(f"INSERT INTO processing_jobs ({names}) VALUES ({marks})", rows)
                db.executemany(ACCEPTED, ({**row, "first": job_id} for row in rows))
