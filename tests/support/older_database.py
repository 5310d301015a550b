"""Databases as earlier versions of the program left them."""

import sqlite3

from imgsvc.jobs.table.sql import migration

USAGE = migration("011_usage.sql")
USAGE = USAGE[USAGE.index("CREATE VIEW job_usage") :]
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
    10: (
        "DROP INDEX images_of_user; DROP INDEX images_of_user_in_bucket; DROP INDEX images_of_user_unfinished;"
        "DROP INDEX images_of_user_by_name; DROP INDEX images_of_org; DROP INDEX images_in_bucket;"
        "DROP INDEX images_by_name; DROP INDEX images_by_sha256; DROP INDEX jobs_recent;"
        "CREATE INDEX jobs_recent ON processing_jobs (created_at) WHERE deleted_at IS NULL;"
        "DROP INDEX jobs_recent_of_status;"
        "CREATE INDEX jobs_recent_of_status ON processing_jobs (status, created_at) WHERE deleted_at IS NULL;"
        "ALTER TABLE processing_jobs DROP COLUMN folded_name; ALTER TABLE job_counting DROP COLUMN names_upto;"
    ),
    11: (
        "DROP TRIGGER IF EXISTS usage_inserted; DROP TRIGGER IF EXISTS usage_before;"
        "DROP TRIGGER IF EXISTS usage_after;"
        "DROP TRIGGER IF EXISTS usage_dropped; DROP VIEW job_usage; DROP TABLE usage;"
        "ALTER TABLE job_counting DROP COLUMN usage_upto;"
    ),
    12: (
        "DROP INDEX images_expiring; ALTER TABLE processing_jobs DROP COLUMN expires_at;"
        "ALTER TABLE service_instance DROP COLUMN clock_wall; ALTER TABLE service_instance DROP COLUMN clock_boot;"
        "ALTER TABLE service_instance DROP COLUMN clock_boot_id;"
        "ALTER TABLE service_instance DROP COLUMN clock_doubted;"
    ),
    13: "DROP TABLE api_keys; DROP TABLE upload_tickets; ALTER TABLE processing_jobs DROP COLUMN ticket_id;",
    14: (
        "DROP INDEX sources_kept; DROP TRIGGER IF EXISTS usage_before; DROP TRIGGER IF EXISTS usage_after;"
        "DROP TRIGGER IF EXISTS usage_inserted; DROP TRIGGER IF EXISTS usage_dropped;"
        "DROP VIEW job_usage;"
        "ALTER TABLE processing_jobs DROP COLUMN source_key; ALTER TABLE processing_jobs DROP COLUMN source_bytes;"
        f"ALTER TABLE processing_jobs DROP COLUMN source_sha256; {USAGE}"
    ),
    15: (
        "DROP TABLE render_tasks; DROP TABLE render_findings; DROP INDEX renders_by_task;"
        "ALTER TABLE renders DROP COLUMN task_id;"
    ),
    16: (
        "DROP TABLE erasures; DROP TABLE erased_jobs; DROP TRIGGER IF EXISTS retired_counted;"
        "DROP TRIGGER IF EXISTS retired_gone; DROP TRIGGER IF EXISTS retired_dropped;"
        "DROP TRIGGER IF EXISTS retired_of_deleted; ALTER TABLE retired_keys DROP COLUMN size_bytes;"
    ),
    17: "DROP TABLE job_hours; DROP TABLE queue_minutes; DROP INDEX jobs_by_error;",
    18: "DROP TRIGGER IF EXISTS source_kept; DROP TRIGGER IF EXISTS source_row_dropped; DROP TABLE source_sums;",
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
