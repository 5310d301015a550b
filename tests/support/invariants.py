"""What must hold of a data folder and of a running service, whatever happened before: `assert_sound`.

Every fault is reported, each as a plain sentence. How much must hold depends on the moment:

- `killed`   any instant. What was accepted is there, what is completed is whole; leftovers may lie about that the next
             start removes.
- `stopped`  after a graceful stop: nothing runs any more, and the scratch folder is empty.
- `settled`  all jobs have ended and housekeeping has been through: no file is left that no row needs.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from imgsvc.jobs.retry import MAX_STARTS
from imgsvc.jobs.table.database import MIGRATIONS
from tests.support.job_row import UNFINISHED, Row
from tests.support.sums import faults_of_events, faults_of_sums, faults_of_usage

State = Literal["killed", "stopped", "settled"]
PERSONAL = ("user_id", "org_id", "original_filename", "idempotency_key", "idempotency_digest")
PARTIAL = ".partial"
UPLOADING = ".part"
HEALTH = "health"  # the probe's file in the scratch folder


@dataclass(frozen=True, slots=True)
class Places:
    """Where a service keeps what it has: `storages` is {backend: folder}; files of other backends are not looked at."""

    database: Path
    storages: Mapping[str, Path] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.database.parent


def assert_sound(places: Places, state: State) -> None:
    """Raises AssertionError with all that does not hold."""
    found = faults(places, state)
    assert not found, "\n".join([f"{len(found)} invariants do not hold ({state}):", *found])


def faults(places: Places, state: State) -> list[str]:
    """All that does not hold, as sentences. The service may be running; then it may be amid a change."""
    if not places.database.exists():
        return []  # nothing was ever accepted here
    with closing(sqlite3.connect(f"{places.database.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as db:
        db.row_factory = sqlite3.Row
        db.execute("BEGIN")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            return []  # it was killed before it had a schema
        found = _faults_of_pages(db)
        if found:
            return found
        if version > len(MIGRATIONS) or (version < len(MIGRATIONS) and state != "killed"):
            found.append(f"The schema's version is {version}, not {len(MIGRATIONS)}.")
        rows = [Row(row) for row in db.execute("SELECT * FROM processing_jobs")]
        found += _faults_of_further(rows, db, state)
        found += _faults(places, state, rows)
        if state != "killed":  # amid a first start, a restore or an adoption
            found += _faults_of_ids(places, db)
        return [*found, *faults_of_events(rows, db), *faults_of_sums(db), *faults_of_usage(rows, db)]


def _faults_of_pages(db: sqlite3.Connection) -> list[str]:
    try:
        said = [row[0] for row in db.execute("PRAGMA integrity_check")]
    except sqlite3.DatabaseError as error:
        said = [str(error)]
    return [f"The database is damaged: {one}." for one in said if one != "ok"]


def _faults(places: Places, state: State, rows: list[Row]) -> Iterator[str]:
    for row in rows:
        yield from (f"{row} {fault}." for fault in _faults_of_row(row, state))
        yield from (f"{row} {fault}." for fault in _faults_of_source(row, places.data / "staging"))
        if places.storages.get(row.backends[0]) is not None:
            yield from (f"{row} {fault}." for fault in _faults_of_variants(row, places.storages[row.backends[0]]))
    yield from _faults_of_staging(places.data / "staging", state, {row.staged for row in rows})
    yield from _faults_of_scratch(places.data / "scratch", state)
    if state != "killed":
        yield from (f"Data folder: {path.name} is left over." for path in sorted(places.data.glob(".*")))
    by_image = {row.image_id: row for row in rows}
    for backend, folder in places.storages.items():
        yield from _faults_of_storage(backend, folder, state, by_image)


def _faults_of_row(row: Row, state: State) -> Iterator[str]:
    values = row.values
    if row.deleted:
        if row.queue or values["next_attempt_at"]:
            yield "still waits for something"
        if not row.lacks(*PERSONAL) or values["client_metadata"] != "{}":
            yield "still holds what its user said"
        if state == "settled" and (row.staged or row.paths or values.get("also_in")):
            yield "still names files"
        return
    if values["attempt_count"] > values["max_retries"]:
        yield f"has had {values['attempt_count']} attempts of {values['max_retries']}"
    if values["starts"] > MAX_STARTS:
        yield f"was started {values['starts']} times; {MAX_STARTS} are the limit"
    if row.status in UNFINISHED:
        yield from _faults_of_unfinished(row, state)
    elif row.queue or values["next_attempt_at"]:
        yield "waits for something"
    if row.status == "completed":
        if not row.has("completed_at") or not row.lacks("error_code", "last_error", "retryable"):
            yield "has no time of its end, or an error"
        if state == "settled" and row.staged and not row.wants_source:
            yield "still names its source"
    if row.status == "failed":
        if not row.has("failed_at", "error_code", "retryable") or not values["last_error"]:
            yield "does not say when and why, or whether it can be tried again"
        if state == "settled" and (row.paths or (row.staged and not values["retryable"])):
            yield "still names files that it does not need"
        if values["retryable"] and not row.staged:
            yield "is to be tried again and names no source"


def _faults_of_further(rows: list[Row], db: sqlite3.Connection, state: State) -> Iterator[str]:
    """What is made of completed images later has an image, and keys that no image's row has yet."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'renders'").fetchone():
        return  # an older schema
    by_id = {row.job_id: row for row in rows}
    for render in db.execute("SELECT * FROM renders"):
        row, keys = by_id.get(render["job_id"]), json.loads(render["keys"])
        what = f"Render {render['render_id']} ({render['state']})"
        if row is None or row.deleted or row.status != "completed":
            yield f"{what}: its image is {row and (row.deleted or row.status)}."
            continue
        row.wants_source |= render["source"] == "staged" and render["state"] != "failed"
        row.ordered |= set(keys)
        row.further |= {(render["backend"], f"{row.bucket}/{key}") for key in keys.values()}
        if set(keys.values()) & set(row.paths.values()):
            yield f"{what}: {row} has its keys already."
        if render["starts"] > MAX_STARTS:
            yield f"{what} was started {render['starts']} times; {MAX_STARTS} are the limit."
        if state == "settled" and render["state"] != "failed":
            yield f"{what} has not ended."
        if state == "stopped" and render["state"] == "running":
            yield f"{what} runs though the service was stopped."
    for row in rows:
        lost = row.further_names - set(row.paths) - row.ordered
        if row.status == "completed" and not row.deleted and lost:
            yield f"{row} has not {sorted(lost)}, and nothing will make them."
    for retired in db.execute("SELECT * FROM retired_keys WHERE remove_at IS NOT NULL"):
        row = by_id.get(retired["job_id"])
        if row is None:
            yield f"Retired {retired['key']}: no row."
            continue
        row.further.add((retired["backend"], f"{retired['bucket']}/{retired['key']}"))
        if retired["backend"] == row.backends[0] and retired["key"] in row.paths.values() and not row.deleted:
            yield f"Retired {retired['key']}: {row} still names it."


def _faults_of_unfinished(row: Row, state: State) -> Iterator[str]:
    if state == "settled":
        yield "has not ended"
    if row.status == "pending" and (row.queue is None or not row.lacks("next_attempt_at")):
        yield "is in no queue, or waits for a time: nothing will move it"
    if row.status == "retrying" and (not row.has("next_attempt_at", "error_code") or row.queue is not None):
        yield "has no time for its next attempt: nothing will move it"
    if row.status == "processing" and state == "stopped" and row.queue is None:
        yield "runs though the service was stopped"
    if not row.staged:
        yield "names no source"


def _faults_of_source(row: Row, staging: Path) -> Iterator[str]:
    """The source of whatever may still be rendered is there, whole."""
    needed = not row.deleted and (row.status in UNFINISHED or (row.status == "failed" and row.values["retryable"]))
    if not needed or not row.staged or row.values["error_code"] == "source_missing":
        return
    try:
        source = (staging / row.staged).read_bytes()  # at once: a sweep may be removing it
    except FileNotFoundError:
        yield "has lost its source"
        return
    if len(source) != row.values["content_length"]:
        yield f"has a source of {len(source)} bytes instead of {row.values['content_length']}"
    elif hashlib.sha256(source).hexdigest() != row.values["sha256"]:
        yield "has a source of other bytes than were accepted"


def _faults_of_variants(row: Row, storage: Path) -> Iterator[str]:
    """Each variant that the row says is stored has the bytes that it says; a completed one has all of its recipe."""
    if row.deleted or row.status == "failed":
        return
    if row.status == "completed" and set(row.paths) - row.further_names != row.names:
        yield f"has the variants {sorted(row.paths)} of {sorted(row.names)}"
    if row.kept:
        source = storage / row.bucket / str(row.source_key)
        if not source.is_file() or _digest(source) != row.values["source_sha256"]:
            yield "has lost its kept source, or has another one than was recorded"
        elif source.stat().st_size != row.values["source_bytes"]:
            yield "has a kept source of another size than was recorded"
    for name, key in row.paths.items():
        path, made = storage / row.bucket / key, row.measured.get(name)
        if made is None:
            yield f"says nothing of the size of its variant {name}"
        elif path.is_symlink() or not path.is_file():
            yield f"has lost its variant {name}"
        elif path.stat().st_size != made["size_bytes"]:
            yield f"has a variant {name} of {path.stat().st_size} bytes instead of {made['size_bytes']}"
        elif _digest(path) != made["sha256"]:
            yield f"has a variant {name} of other bytes than were recorded"


def _faults_of_staging(staging: Path, state: State, named: set[str | None]) -> Iterator[str]:
    for path in _files(staging):
        name = path.name.removesuffix(UPLOADING)
        if name not in named and state != "killed":
            yield f"Staged file {path.name}: no row names it."
        elif path.name.endswith(UPLOADING) and state == "settled":
            yield f"Staged file {path.name}: its upload is over."


def _faults_of_scratch(scratch: Path, state: State) -> Iterator[str]:
    if state == "killed" or not scratch.is_dir():
        return
    for path in scratch.iterdir():
        if path.name != HEALTH:
            yield f"Scratch folder: {path.name} is left over."


def _faults_of_storage(backend: str, folder: Path, state: State, by_image: Mapping[str, Row]) -> Iterator[str]:
    for path in _files(folder):
        place = path.relative_to(folder)
        if place.parts[0].startswith("."):
            continue  # the health probe's, and what says whose folder it is
        partial = path.name.endswith(PARTIAL)
        name = path.name.removeprefix(".").removesuffix(PARTIAL) if partial else path.name
        row = by_image.get(name.split("_")[0].split(".")[0])
        if row is None:
            yield f"{backend}: {place}: no row names it."
        elif partial:
            if state == "settled" or (state == "stopped" and not _may_put(row)):
                yield f"{backend}: {place}: a half-written file of {row} is left over."
        elif (backend, str(place)) in row.further:
            continue
        elif backend not in row.backends:
            yield f"{backend}: {place}: {row} is stored in {' and '.join(row.backends)}."
        elif str(place) not in _named(row) and not _may_put(row):
            yield f"{backend}: {place}: {row} does not name it."


def _named(row: Row) -> set[str]:
    """The files that the row names: a completed one its source only if that is kept."""
    source = row.source_key if row.kept or row.status != "completed" or row.deleted else None
    listed = [*row.paths.values(), *([source] if source and row.paths else [])]
    return {f"{row.bucket}/{key}" for key in listed}


def _may_put(row: Row) -> bool:
    """Whether a run is to come that puts all variants of the row, over what an earlier one has put."""
    return not row.deleted and row.status in UNFINISHED


def _faults_of_ids(places: Places, db: sqlite3.Connection) -> Iterator[str]:
    """The data folder and a local storage folder that has an id have that of the database."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'service_instance'").fetchone():
        return  # an older schema
    own = db.execute("SELECT id FROM service_instance").fetchone()
    for path in (places.data / "instance", *(folder / ".instance" for folder in places.storages.values())):
        found = path.read_text().split()[:1] if path.is_file() else []
        if found and own and found[0] != own[0]:
            yield f"The id in {path.relative_to(places.data.parent)} is {found[0]}, and that of the database {own[0]}."


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    """All files below; what vanishes meanwhile is not there."""
    return sorted(path for path in folder.rglob("*") if not path.is_dir()) if folder.is_dir() else []
