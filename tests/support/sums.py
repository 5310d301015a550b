"""What the database keeps about all jobs, beside what a scan finds: audit trail, sums, usage of each user."""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.support.job_row import UNFINISHED, Row


def faults_of_events(rows: list[Row], db: sqlite3.Connection) -> Iterator[str]:
    """The audit trail has each change of each job once; nothing is asked of it once its first events were dropped."""
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for job_id, kind in db.execute("SELECT job_id, event_type FROM image_upload_events WHERE job_id IS NOT NULL"):
        kinds[job_id]["deleted" if kind == "expired" else kind] += 1  # an expiry is a deletion too
    first = db.execute("SELECT min(id) FROM image_upload_events").fetchone()[0]
    for job_id in kinds.keys() - {row.job_id for row in rows}:
        yield f"Events: {sorted(kinds[job_id])} of a job {job_id} that has no row."
    if first != 1:
        return
    for row in rows:
        seen = kinds[row.job_id]
        once = {"accepted": 1, "deleted": int(row.deleted)}
        if not row.deleted:
            once |= {"completed": int(row.status == "completed")}
        for kind, expected in once.items():
            if seen[kind] != expected:
                yield f"{row} has {seen[kind]} events '{kind}' instead of {expected}."
        if row.status == "failed" and not seen["failed"]:
            yield f"{row} has no event 'failed'."
        raised = (
            seen["processing"] + seen["deleted"] + seen["retried"] + seen["rendered_again"] + seen["source_dropped"]
        )
        if row.values["run"] != raised:
            yield f"{row} is at run {row.values['run']}, and its events tell of {raised}."


SCANS = {
    "jobs": "SELECT status, count(*) FROM processing_jobs WHERE deleted_at IS NULL GROUP BY 1",
    "bytes": "SELECT variant.key, sum(json_extract(variant.value, '$.size_bytes')) FROM processing_jobs AS job, "
    "json_each(job.processing_metadata, '$.variants') AS variant "
    "WHERE +job.status = 'completed' AND +job.deleted_at IS NULL GROUP BY 1",
}


def faults_of_sums(db: sqlite3.Connection) -> Iterator[str]:
    """The sums that the transactions keep are those of a scan, as far as an old database is counted already."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'job_sums'").fetchone():
        return  # an older schema
    upto = db.execute("SELECT bytes_upto FROM job_counting").fetchone()[0]
    scan: Counter[tuple[str, str]] = Counter()
    for status, jobs in db.execute(
        "SELECT status, count(*) FROM processing_jobs WHERE deleted_at IS NULL GROUP BY status"
    ):
        scan["jobs", status] = jobs
    for size, taken in db.execute(
        "SELECT variant.key, sum(json_extract(variant.value, '$.size_bytes'))"
        " FROM processing_jobs AS job, json_each(job.processing_metadata, '$.variants') AS variant"
        " WHERE +job.status = 'completed' AND +job.deleted_at IS NULL AND job.rowid <= ? GROUP BY 1",
        [1 << 62 if upto is None else upto],
    ):
        scan["bytes", size] = taken
    sums = Counter({(kind, name): total for kind, name, total in db.execute("SELECT kind, name, total FROM job_sums")})
    for kind, name in sorted(sums.keys() | scan.keys()):
        if sums[kind, name] != scan[kind, name]:
            yield f"The sum of {kind} of {name} is {sums[kind, name]}; a scan finds {scan[kind, name]}."


def faults_of_usage(rows: list[Row], db: sqlite3.Connection) -> Iterator[str]:
    """What each user has stored is what a scan finds, as far as an old database is counted already."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'usage'").fetchone():
        return  # an older schema
    upto = db.execute("SELECT usage_upto FROM job_counting").fetchone()[0]
    counted = {row[0] for row in db.execute("SELECT job_id FROM processing_jobs WHERE rowid <= ?", [upto or 1 << 62])}
    scan: Counter[tuple[str, str, str]] = Counter()
    retired = _retired_bytes(db)
    for row in rows:
        if row.deleted or row.job_id not in counted or (upto == 0):
            continue
        done, org = row.status == "completed", row.values["org_id"]
        for user in (row.values["user_id"], ""):
            scan[org, user, "images"] += done
            stored = sum(one["size_bytes"] for one in row.measured.values()) + (row.values.get("source_bytes") or 0)
            scan[org, user, "bytes"] += stored if done else 0
            scan[org, user, "reserved"] += row.values["content_length"] if row.status in UNFINISHED else 0
            scan[org, user, "bytes"] += retired.get(row.job_id, 0)
    kept: Counter[tuple[str, str, str]] = Counter()
    for org, user, *figures in db.execute("SELECT org_id, user_id, images, bytes, reserved FROM usage"):
        kept |= Counter(
            {(org, user, name): one for name, one in zip(("images", "bytes", "reserved"), figures, strict=True)}
        )
        if not any(figures):
            yield f"A user of {org} who has nothing is still named."
    for key in sorted(kept.keys() | scan.keys()):
        if kept[key] != scan[key]:
            yield f"The usage {key} is {kept[key]}; a scan finds {scan[key]}."


def _retired_bytes(db: sqlite3.Connection) -> dict[str, int]:
    """{job: bytes} of replaced files that are not gone yet."""
    if not db.execute("SELECT 1 FROM pragma_table_info('retired_keys') WHERE name = 'size_bytes'").fetchone():
        return {}  # an older schema
    return dict(
        db.execute("SELECT job_id, sum(size_bytes) FROM retired_keys WHERE remove_at IS NOT NULL GROUP BY job_id")
    )
