"""What is done while a durable call fails. One function for each, by its name in SCENARIOS.

To add one: write a function that takes an Attempt, begins exactly one process by `attempt.serve()` or
`attempt.command()`, and ends a service with `stopped()`. Put it into SCENARIOS, with what it begins with (`prepare`,
done once), what an operator would do once more after it was cut short (`again`), and what it alone promises (`check`).
The invariants and the promise of the receipt are looked at after each case in any event.
"""

import hashlib
import json
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from fixtures import make
from imgsvc.jobs.table.sql import migration
from tests.torture.kill_at.case import Attempt, Scenario, stopped
from tests.torture.kill_at.site import Service, until

SIZES = ("thumbnail", "medium", "large", "original")
UNKNOWN = "00000000-0000-4000-8000-000000000000"
ORPHAN = f"b/processed/large/{UNKNOWN}_large.webp"
FIRST_RELEASE = ("001_tables.sql", "002_operator_reads.sql", "003_moving_backends.sql")  # of version 0.1.0


@cache
def tiny(seed: int = 1) -> bytes:
    return make.jpeg(64, 48, seed)


@cache
def torn() -> bytes:
    """A picture whose header is sound and whose end is missing."""
    whole = make.jpeg(200, 150)
    return whole[: len(whole) // 2]


def first_start(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.noted(service.ask("GET", "/api/v1/health"), "the health check")
        stopped(attempt, service)


def upload(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()))
        stopped(attempt, service)


def upload_in_chunks(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny(2) + bytes(200_000), chunks=3))
        stopped(attempt, service)


def same_photo_twice(attempt: Attempt) -> None:
    """A client that got no answer sends it again with the same key: there is one image."""
    with attempt.serve() as service:
        jobs = {attempt.upload(service, tiny(), key="once") for _ in range(3)} - {None}
        if len(jobs) > 1:
            attempt.wrong.append(f"One key made {len(jobs)} jobs.")
        for job in jobs:
            attempt.ended(service, job)
        stopped(attempt, service)


def one_image_of_the_key(attempt: Attempt, service: Service) -> None:
    attempt.upload(service, tiny(), key="once")
    attempt.rest(service)
    count = len(attempt.rows("SELECT 1 FROM processing_jobs WHERE idempotency_key = 'once'"))
    if count != 1 or len(attempt.receipts) != 1:
        attempt.wrong.append(f"One key has {count} rows and {len(attempt.receipts)} receipts.")
    until(lambda: not list((attempt.site.data / "staging").iterdir()), 3, why="a source is left in the staging folder")


def failing_picture(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.ended(service, attempt.upload(service, torn()))
        stopped(attempt, service)


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


def one_completed(attempt: Attempt) -> None:
    several_completed(attempt, 1)


def several_completed(attempt: Attempt, count: int = 2) -> None:
    """Images whose every byte is remembered."""
    with attempt.site.serve() as service:
        for seed in range(count):
            attempt.ended(service, attempt.upload(service, tiny(seed)))
        for image_id in attempt.receipts.values():
            attempt.memory[image_id] = shown(service, image_id)
        stopped(attempt, service)


def shown(service: Service, image_id: str) -> dict[str, str]:
    """{size: digest} of the bytes that a client gets."""
    paths = {size: f"/api/v1/images/{image_id}/direct?size={size}" for size in SIZES}
    return {size: hashlib.sha256(service.raw(path)).hexdigest() for size, path in paths.items()}


def same_bytes(attempt: Attempt, service: Service) -> None:
    there = {row[0] for row in attempt.rows("SELECT image_id FROM processing_jobs WHERE deleted_at IS NULL")}
    for image_id, before in attempt.memory.items():
        if image_id in there and shown(service, image_id) != before:
            attempt.wrong.append(f"The image {image_id} has other bytes than before.")


def one_failed(attempt: Attempt) -> None:
    """A job that failed since its bucket could not be made, and may be tried again."""
    attempt.site.more = {**attempt.site.more, "IMGSVC_JOBS_MAX_ATTEMPTS": "1"}
    storage = attempt.site.folder / "storage"
    storage.mkdir()
    (storage / "b").write_bytes(b"")
    with attempt.site.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny()), status=("failed",))
        stopped(attempt, service)
    (storage / "b").unlink()


def retry_by_operator(attempt: Attempt) -> None:
    with attempt.serve() as service:
        (job,) = attempt.receipts
        path = f"/api/v1/operator/jobs/{job}/retry"
        attempt.noted(service.ask("POST", path, b"{}", service.operator), "a retry")
        stopped(attempt, service)


def old_data_folder(attempt: Attempt) -> None:
    """As version 0.1.0 left it: completed images, a job that waits, one that failed and one that was deleted."""
    several_completed(attempt)
    with attempt.site.serve() as service:
        attempt.ended(service, attempt.upload(service, torn()))
        attempt.delete(service, next(iter(attempt.receipts.values())))
        waiting = [attempt.upload(service, make.jpeg(300, 200, seed)) for seed in range(2)]
        assert all(waiting)
    _downgrade(attempt.site.places.database)
    for name in ("storage", "data"):
        for mark in (attempt.site.folder / name).glob(".*"):
            if mark.is_file():
                mark.unlink()


def _downgrade(path: Path) -> None:
    """Write the database anew with the schema of the first release, and what its columns hold."""
    old = path.with_name("old.db")
    with closing(sqlite3.connect(old, isolation_level=None)) as db:
        for name in FIRST_RELEASE:
            db.executescript(migration(name))
        db.execute(f"PRAGMA user_version = {len(FIRST_RELEASE)}")
        db.execute("ATTACH ? AS new", [str(path)])
        for table in ("processing_jobs", "image_upload_events", "upload_rate_limits"):
            names = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
            db.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM new.{table}")
    for newer in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        newer.unlink(missing_ok=True)
    old.rename(path)


def start_again(attempt: Attempt) -> None:
    with attempt.serve() as service:
        stopped(attempt, service)


def backup(attempt: Attempt) -> None:
    attempt.memory["status"] = attempt.command("storage", "backup", str(attempt.site.backup))


def backup_of_a_service(attempt: Attempt) -> None:
    with attempt.serve() as service:
        upkeep(service, "backup", destination=str(attempt.site.backup))
        stopped(attempt, service)


def upkeep(service: Service, verb: str, **order: object) -> None:
    """Ask for it and wait for its end. Raises Gone."""
    service.ask("POST", f"/api/v1/operator/storage/{verb}", json.dumps(order).encode(), service.operator)

    def over() -> bool:
        body = service.ask("GET", "/api/v1/operator/storage/task", headers=service.operator).body
        return body.get("state") != "running"

    until(over, 20, why=f"{verb} does not end")


def a_former_backup(attempt: Attempt) -> None:
    one_completed(attempt)
    assert attempt.site.command("storage", "backup", str(attempt.site.backup)) == 0
    with attempt.site.serve() as service:
        attempt.ended(service, attempt.upload(service, tiny(5)))
        stopped(attempt, service)


def backup_is_whole(attempt: Attempt) -> None:
    """The former one after it was cut short; then a new one can be made."""
    if attempt.site.command("storage", "restore", str(attempt.site.backup), "--dry-run") != 0:
        attempt.wrong.append("The former backup is not whole any more.")
    if attempt.site.command("storage", "backup", str(attempt.site.backup)) != 0:
        attempt.wrong.append("A backup can't be made any more.")


def nothing_but_a_backup(attempt: Attempt) -> None:
    a_former_backup(attempt)
    assert attempt.site.command("storage", "backup", str(attempt.site.backup)) == 0
    with attempt.site.serve() as service:
        for image_id in attempt.receipts.values():
            attempt.memory[image_id] = shown(service, image_id)
        stopped(attempt, service)


def restore(attempt: Attempt) -> None:
    attempt.command("storage", "restore", str(attempt.site.backup), "--force")


def restore_again(attempt: Attempt) -> None:
    """With or without --force, it goes on to its end."""
    if attempt.site.command("storage", "restore", str(attempt.site.backup), "--force") != 0:
        attempt.wrong.append("A restore that was cut short can't be done again.")


def with_an_orphan(attempt: Attempt) -> None:
    several_completed(attempt)
    orphan = attempt.site.folder / "storage" / ORPHAN
    orphan.write_bytes(b"12345")


def gc(attempt: Attempt) -> None:
    attempt.command("storage", "gc", "--yes", "--older-than", "0")


def gc_again(attempt: Attempt) -> None:
    if attempt.site.command("storage", "gc", "--yes", "--older-than", "0") != 0:
        attempt.wrong.append("gc can't be done again.")


def verify(attempt: Attempt) -> None:
    attempt.command("storage", "verify", "--digests", "--grace", "0")


def all_is_well(attempt: Attempt) -> None:
    if attempt.site.command("storage", "verify", "--digests", "--grace", "0") != 0:
        attempt.wrong.append("verify finds faults.")


def migrate(attempt: Attempt) -> None:
    with attempt.serve() as service:
        upkeep(service, "migrate", to="other")
        stopped(attempt, service)


def migrate_again(attempt: Attempt) -> None:
    if attempt.site.command("storage", "migrate", "--to", "other") != 0:
        attempt.wrong.append("A migration that was cut short can't be done again.")
    all_is_well(attempt)


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("first-start", first_start),
        Scenario("upload", upload),
        Scenario("upload-in-chunks", upload_in_chunks),
        Scenario("same-photo-twice", same_photo_twice, check=one_image_of_the_key),
        Scenario("failing-picture", failing_picture),
        Scenario("delete-completed", delete_completed, prepare=several_completed, check=same_bytes),
        Scenario("delete-waiting", delete_waiting),
        Scenario("delete-running", delete_running),
        Scenario("retry-by-operator", retry_by_operator, prepare=one_failed),
        Scenario("old-data-folder", start_again, prepare=old_data_folder, check=same_bytes),
        Scenario("backup", backup, prepare=a_former_backup, again=backup_is_whole),
        Scenario("backup-of-a-service", backup_of_a_service, prepare=a_former_backup, again=backup_is_whole),
        Scenario("restore", restore, prepare=nothing_but_a_backup, again=restore_again, check=same_bytes),
        Scenario("gc", gc, prepare=with_an_orphan, again=gc_again, check=same_bytes),
        Scenario("verify", verify, prepare=several_completed, again=all_is_well, check=same_bytes),
        Scenario("migrate", migrate, prepare=several_completed, again=migrate_again, check=same_bytes),
    )
}
