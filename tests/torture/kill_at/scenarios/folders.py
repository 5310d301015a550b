"""The data folder and the storage folder: made at the first start, brought up to date, given to a database."""

import hashlib
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from fixtures import make
from imgsvc.jobs.table.sql import migration
from tests.torture.kill_at.case import Attempt, stopped
from tests.torture.kill_at.scenarios.jobs import LOST
from tests.torture.kill_at.scenarios.pictures import several_completed, tiny, torn
from tests.torture.kill_at.site import Gone, Service, until

FIRST_RELEASE = ("001_tables.sql", "002_operator_reads.sql", "003_moving_backends.sql")  # of version 0.1.0
ANOTHER = "44444444-4444-4444-8444-444444444444"  # the id of another service


def first_start(attempt: Attempt) -> None:
    with attempt.serve() as service:
        attempt.noted(service.ask("GET", "/api/v1/health"), "the health check")
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
    """Write the database again with the schema of the first release, and what its columns hold."""
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


def without_a_secret(attempt: Attempt) -> None:
    """Of the settings: the service makes its own."""
    attempt.site.more = {**attempt.site.more, "JWT_SECRET_KEY": ""}


def token(attempt: Attempt) -> None:
    """The first thing that is ever done here: it makes the data folder and the secret."""
    if attempt.command("token", "--sub", "alice") == 0:
        attempt.memory["token"] = (attempt.site.folder / "output.txt").read_text().strip()


def token_again(attempt: Attempt) -> None:
    if attempt.site.command("token", "--sub", "alice") != 0:
        attempt.wrong.append("No token can be had any more.")


def token_is_good(attempt: Attempt, service: Service) -> None:
    """One that was handed out before."""
    if token := attempt.memory.get("token"):
        answer = service.ask("GET", "/api/v1/images", headers={"Authorization": f"Bearer {token}"})
        if answer.status != 200:
            attempt.wrong.append(f"A token that was handed out is answered with {answer.status}.")


def doctor(attempt: Attempt) -> None:
    attempt.command("doctor")


def folder_of_another(attempt: Attempt) -> None:
    """A storage folder that holds the images of this database and the id of another."""
    several_completed(attempt)
    (attempt.site.folder / "storage/.instance").write_text(f"{ANOTHER}\n")
    _is_refused(attempt)


def lost_database(attempt: Attempt) -> None:
    """What is left of a service: its stored images, and an upload that waits."""
    several_completed(attempt)
    attempt.receipts.clear()
    attempt.memory = {"files": _stored(attempt)}
    (attempt.site.data / "staging" / LOST).write_bytes(tiny(7))
    attempt.site.places.database.unlink()
    _is_refused(attempt)


def adopt(attempt: Attempt) -> None:
    attempt.command("storage", "adopt", "--yes")


def adopt_again(attempt: Attempt) -> None:
    if attempt.site.command("storage", "adopt", "--yes") != 0:
        attempt.wrong.append("An adoption that was cut short can't be done again.")


def adopt_again_and_tidy(attempt: Attempt) -> None:
    """Nothing was removed; what no row names goes once the operator says so."""
    adopt_again(attempt)
    if _stored(attempt) != attempt.memory["files"]:
        attempt.wrong.append("Adopting has changed or removed stored files.")
    if attempt.site.command("storage", "gc", "--yes", "--older-than", "0") != 0:
        attempt.wrong.append("gc fails in folders that were adopted.")


def upload_is_set_aside(attempt: Attempt, service: Service) -> None:
    kept = attempt.site.data / "orphaned" / LOST
    until(lambda: service.gone or kept.is_file(), 3, why="the upload of the lost database is not set aside")
    if kept.read_bytes() != tiny(7):
        attempt.wrong.append("The upload of the lost database has other bytes than before.")


def _is_refused(attempt: Attempt) -> None:
    with suppress(Gone), attempt.site.serve():
        raise AssertionError("the service starts on folders that do not belong together")


def _stored(attempt: Attempt) -> dict[str, str]:
    """{path: digest}"""
    root = attempt.site.folder / "storage"
    files = [path for path in root.rglob("*") if path.is_file() and not path.relative_to(root).parts[0].startswith(".")]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
