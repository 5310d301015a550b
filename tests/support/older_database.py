"""Databases as earlier versions of the program left them."""

import sqlite3

# What each schema has made beyond the one before, undone.
UNDONE = {
    2: (
        "DROP INDEX jobs_waiting; CREATE INDEX jobs_waiting ON processing_jobs (queue, turn);"
        "DROP INDEX jobs_recent; CREATE INDEX jobs_by_created ON processing_jobs (created_at);"
        "DROP INDEX jobs_recent_of_status; CREATE INDEX jobs_by_status ON processing_jobs (status);"
        "DROP INDEX jobs_recent_failed; DROP INDEX windows_by_start; DROP INDEX windows_by_count;"
        "ALTER TABLE processing_jobs DROP COLUMN retried_at;"
    ),
    3: "ALTER TABLE processing_jobs DROP COLUMN also_in;",
    4: "DROP TABLE service_instance;",
    5: ("DROP VIEW job_bytes;DROP TABLE job_sums; DROP TABLE job_minutes; DROP TABLE job_counting;"),
    6: "DROP TABLE job_sources;",
    7: "DROP TABLE renders; DROP TABLE retired_keys; ALTER TABLE processing_jobs DROP COLUMN revision;",
    8: "DROP TABLE operator_sessions;",
    9: (
        "DROP TRIGGER IF EXISTS webhook_told; DROP TABLE webhook_attempts; DROP TABLE webhook_outbox;"
        "DROP TABLE webhook_endpoints;"
    ),
}


def back_to_schema(db: sqlite3.Connection, version: int) -> None:
    """Make a database of the newest schema one of an older schema, with all its rows."""
    present = db.execute("PRAGMA user_version").fetchone()[0]
    if version < 5 <= present:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
    for undone in range(present, version, -1):
        db.executescript(UNDONE[undone])
    db.execute(f"PRAGMA user_version = {version}")
