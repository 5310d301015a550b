"""Jobs: deleted, retried, given back at a stop, and what housekeeping drops of them."""

import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

from fixtures import make
from tests.torture.kill_at.case import REST_SECONDS, Attempt, stop, stopped
from tests.torture.kill_at.scenarios.pictures import one_completed, several_completed, tiny
from tests.torture.kill_at.scenarios.uploads import make_room, without_a_bucket
from tests.torture.kill_at.site import Service, until

LOST = "11111111-1111-4111-8111-111111111111"  # a whole upload without a row
OLD = "22222222-2222-4222-8222-222222222222"  # set aside long ago
TORN = "33333333-3333-4333-8333-333333333333"
PUT_OFF = ("housekeeping_failed", "expiry_failed", "upload_not_set_aside", "unlink_failed")  # until the next sweep
LONG_AGO = "2001-02-03T04:05:06.000000+00:00"


def delete_completed(attempt: Attempt) -> None:
    with attempt.serve() as service:
        for image_id in list(attempt.receipts.values())[:1]:
            attempt.delete(service, image_id)
        stopped(attempt, service)


def delete_waiting(attempt: Attempt) -> None:
    """Three come at once; the last is deleted while it waits or has just begun."""
    with attempt.serve() as service:
        jobs = [attempt.upload(service, tiny(seed)) for seed in range(3)]
        if jobs[-1]:
            attempt.delete(service, attempt.receipts[jobs[-1]])
        stopped(attempt, service)


def delete_running(attempt: Attempt) -> None:
    with attempt.serve() as service:
        job = attempt.upload(service, make.jpeg(800, 600))
        if job:
            attempt.ended(service, job, status=("processing", "completed", "failed"))
            attempt.delete(service, attempt.receipts[job])
        stopped(attempt, service)


def one_failed(attempt: Attempt) -> None:
    """A job that failed since its bucket could not be made, and may be tried again."""
    attempt.site.more = {**attempt.site.more, "IMGSVC_JOBS_MAX_ATTEMPTS": "1"}
    without_a_bucket(attempt)
    with attempt.site.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()), status=("failed",))
        stopped(attempt, service)
    make_room(attempt)


def retry_by_operator(attempt: Attempt) -> None:
    with attempt.serve() as service:
        (job,) = attempt.receipts
        path = f"/api/v1/operator/jobs/{job}/retry"
        attempt.noted(service.ask("POST", path, b"{}", service.operator), "a retry")
        stopped(attempt, service)


def delete_failed(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.delete(service, *attempt.receipts.values())
        stopped(attempt, service)


def retry_by_command(attempt: Attempt) -> None:
    """While no service runs: the next start renders it."""
    attempt.command("jobs", "retry", *attempt.receipts)


def sign_in(attempt: Attempt) -> None:
    """A session of the operator is opened, and all are ended, one after the other."""
    with attempt.serve() as service:
        body = json.dumps({"token": service.operator["Authorization"].removeprefix("Bearer ")}).encode()
        for _ in range(2):
            opened = service.ask("POST", "/api/v1/operator/login", body, {"Content-Type": "application/json"})
            attempt.memory["opened"] = attempt.noted(opened, "a login").status
        ended = service.ask("DELETE", "/api/v1/operator/sessions", headers=service.operator)
        attempt.memory["ended"] = attempt.noted(ended, "an end of sessions").status
        stopped(attempt, service)


def sessions_end_if_answered(attempt: Attempt, _: Service) -> None:
    left = attempt.rows("SELECT count(*) FROM operator_sessions")[0][0]
    if attempt.memory.get("ended") == 200 and left:
        attempt.wrong.append(f"{left} sessions are open that were ended.")


def stop_with_work(attempt: Attempt) -> None:
    """What runs is given back, what waits goes on waiting, and the next start ends both."""
    with attempt.serve() as service:
        for seed in range(3):
            attempt.upload(service, make.jpeg(400, 300, seed))
        stop(attempt, service)


def uploads_without_a_row(attempt: Attempt) -> None:
    """A whole one, a part of one, and one that was set aside more than 7 days ago."""
    one_completed(attempt)
    data = attempt.site.data
    (data / "orphaned").mkdir(mode=0o700)
    for path in (data / "staging" / LOST, data / "staging" / f"{TORN}.part", data / "orphaned" / OLD):
        path.write_bytes(tiny(7))
    before = time.time() - timedelta(days=7, minutes=1).total_seconds()
    os.utime(data / "orphaned" / OLD, (before, before))


def sweep(done: Callable[[Attempt], bool]) -> Callable[[Attempt], None]:
    """A start whose first sweep comes to this, unless something is put off until the next."""

    def act(attempt: Attempt) -> None:
        with attempt.serve() as service:
            until(lambda: service.gone or done(attempt) or attempt.has_logged(*PUT_OFF), REST_SECONDS)
            stopped(attempt, service)

    return act


def swept(done: Callable[[Attempt], bool]) -> Callable[[Attempt, Service], None]:
    """After the next start nothing is put off."""

    def check(attempt: Attempt, service: Service) -> None:
        until(lambda: service.gone or done(attempt), 3, why="a sweep leaves something behind")

    return check


def is_set_aside(attempt: Attempt) -> bool:
    data, kept = attempt.site.data, tiny(7)
    staged, aside = _bytes(data / "staging" / LOST), _bytes(data / "orphaned" / LOST)  # in the order in which it moves
    if kept not in (staged, aside):
        raise AssertionError("an upload without a row is lost")
    gone = not (data / "orphaned" / OLD).exists() and not (data / "staging" / f"{TORN}.part").exists()
    return gone and aside == kept


def _bytes(path: Path) -> bytes | None:
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return None


def long_ago(attempt: Attempt) -> None:
    """A failed job, a deleted one, their events and the user's window, all of them older than they are kept."""
    one_failed(attempt)
    with attempt.site.serve() as service:
        jobs = [attempt.upload(service, tiny(seed)) for seed in range(2)]
        for job in jobs:
            attempt.ended(service, job)
        attempt.delete(service, attempt.receipts[jobs[0] or ""])
        stopped(attempt, service)
    attempt.receipts.pop(jobs[0] or "")  # its row is to go
    attempt.deleted.clear()
    with closing(sqlite3.connect(attempt.site.places.database)) as db, db:
        db.execute("UPDATE processing_jobs SET failed_at = ? WHERE status = 'failed'", [LONG_AGO])
        db.execute("UPDATE processing_jobs SET deleted_at = ? WHERE deleted_at IS NOT NULL", [LONG_AGO])
        db.execute("UPDATE image_upload_events SET created_at = ?", [LONG_AGO])
        db.execute("UPDATE upload_rate_limits SET window_start = ?", [LONG_AGO])


def some_expired(attempt: Attempt) -> None:
    """Three images, one of which has not expired."""
    several_completed(attempt, 3)
    gone = list(attempt.receipts.items())[:2]
    for job_id, image_id in gone:
        del attempt.receipts[job_id]
        attempt.memory.pop(image_id)
    with closing(sqlite3.connect(attempt.site.places.database)) as db, db:
        for job_id, _ in gone:
            db.execute("UPDATE processing_jobs SET expires_at = ? WHERE job_id = ?", [LONG_AGO, job_id])


def is_expired(attempt: Attempt) -> bool:
    """Rows, files and bytes are gone, and each image has one event of it."""
    left = attempt.rows(
        "SELECT count(*) FROM processing_jobs WHERE expires_at IS NOT NULL"
        " AND (deleted_at IS NULL OR processed_paths <> '{}')"
    )
    events = attempt.rows("SELECT count(*) FROM image_upload_events WHERE event_type = 'expired'")
    if events[0][0] > 2:
        raise AssertionError("an image expired twice")
    return bool(left[0][0] == 0 and events[0][0] == 2)


def is_dropped(attempt: Attempt) -> bool:
    kept = attempt.rows(
        "SELECT (SELECT count(*) FROM processing_jobs WHERE status = 'failed' AND staging_path IS NOT NULL)"
        " + (SELECT count(*) FROM processing_jobs WHERE deleted_at IS NOT NULL)"
        " + (SELECT count(*) FROM image_upload_events WHERE created_at = ?)"
        " + (SELECT count(*) FROM upload_rate_limits)",
        LONG_AGO,
    )
    return bool(kept[0][0] == 0)
