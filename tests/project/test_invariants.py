"""The checker of invariants: sound data passes, and each planted violation is reported."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures import make
from tests.conftest import service
from tests.support.invariants import Places, State, assert_sound, faults

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Kept:
    """A data folder with one job of each kind: completed, failed for good, failed and retryable, deleted, pending."""

    folder: Path
    jobs: dict[str, str]
    images: dict[str, str]

    @property
    def places(self) -> Places:
        return Places(self.folder / "data/imgsvc.db", {"local": self.folder / "data/storage"})

    def sql(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self.places.database)) as db, db:
            assert db.execute(statement, values).rowcount != 0, statement

    def set(self, kind: str, change: str) -> None:
        self.sql(f"UPDATE processing_jobs SET {change} WHERE job_id = ?", self.jobs[kind])

    def variant(self, name: str = "large", kind: str = "completed") -> Path:
        image = self.images[kind]
        return self.folder / f"data/storage/photos/processed/{name}/{image}_{name}.webp"

    def staged(self, name: str) -> Path:
        return self.folder / "data/staging" / name


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return asyncio.run(_make(tmp_path_factory.mktemp("made")))


async def _make(folder: Path) -> Kept:
    jobs: dict[str, str] = {}
    images: dict[str, str] = {}

    def keep(kind: str, answer: Any) -> None:
        jobs[kind], images[kind] = answer.json()["job_id"], answer.json()["image_id"]

    async with service(folder / "data", jobs={"max_attempts": 1}) as s:
        for kind in ("completed", "deleted"):
            keep(kind, accepted := await s.upload(make.jpeg(64, 48)))
            await s.ended(accepted)
        gone = await s.http.delete(f"/api/v1/images/{images['deleted']}", headers=s.bearer())
        assert gone.status_code == 200
        keep("failed", accepted := await s.upload(make.jpeg(200, 150)[:4000]))
        await s.ended(accepted)
        in_the_way = s.settings.storage.path / "other"
        in_the_way.write_bytes(b"")
        keep("retryable", accepted := await s.upload(make.jpeg(64, 48), bucket="other"))
        assert (await s.ended(accepted))["retryable"]
        in_the_way.unlink()
        await s.state.jobs.housekeeping.sweep()
    async with service(folder / "data", jobs={"max_attempts": 1}) as s:
        s.state.jobs.queue.hold()
        keep("pending", await s.upload(make.jpeg(64, 48)))
    return Kept(folder, jobs, images)


@pytest.fixture
def kept(made: Kept, tmp_path: Path) -> Kept:
    shutil.copytree(made.folder / "data", tmp_path / "data")
    return Kept(tmp_path, made.jobs, made.images)


def end_pending(k: Kept) -> None:
    """Leave out the job that waits: all else is settled."""
    k.sql("DELETE FROM processing_jobs WHERE job_id = ?", k.jobs["pending"])
    k.sql("DELETE FROM image_upload_events WHERE job_id = ?", k.jobs["pending"])
    k.staged(k.jobs["pending"]).unlink()


def test_sound_data_passes(kept: Kept) -> None:
    assert_sound(kept.places, "killed")
    assert_sound(kept.places, "stopped")
    end_pending(kept)
    assert_sound(kept.places, "settled")


def put(path: Path, data: bytes = b"1") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def swap(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def damage_page(k: Kept) -> None:
    data = bytearray(k.places.database.read_bytes())
    data[4096 * 3 : 4096 * 4] = bytes(4096)
    k.places.database.write_bytes(data)


# Of what is violated, at which of the moments it is looked for, and words of the sentence that reports it.
Planted = tuple[Callable[[Kept], object], State, str]
PLANTED: dict[str, Planted] = {
    "in no queue": (lambda k: k.set("pending", "queue = NULL"), "killed", "nothing will move it"),
    "no next attempt": (lambda k: k.set("pending", "status = 'retrying', queue = NULL"), "killed", "nothing will move"),
    "no run": (lambda k: k.set("pending", "status = 'processing', queue = NULL"), "stopped", "service was stopped"),
    "not ended": (lambda k: None, "settled", "has not ended"),
    "names no source": (lambda k: k.set("pending", "staging_path = NULL"), "killed", "names no source"),
    "no source": (lambda k: k.staged(k.jobs["pending"]).unlink(), "killed", "has lost its source"),
    "source of another size": (lambda k: put(k.staged(k.jobs["pending"])), "killed", "source of 1 bytes"),
    "source of other bytes": (lambda k: swap(k.staged(k.jobs["pending"])), "killed", "source of other bytes"),
    "retryable without source": (lambda k: k.staged(k.jobs["retryable"]).unlink(), "killed", "has lost its source"),
    "too many attempts": (lambda k: k.set("pending", "attempt_count = 9"), "killed", "9 attempts"),
    "too many starts": (lambda k: k.set("pending", "starts = 11"), "killed", "started 11 times"),
    "no end": (lambda k: k.set("completed", "completed_at = NULL"), "killed", "no time of its end"),
    "completed and waits": (lambda k: k.set("completed", "queue = 'renders'"), "killed", "waits for something"),
    "completed with source": (lambda k: k.set("completed", "staging_path = job_id"), "settled", "names its source"),
    "no reason": (lambda k: k.set("failed", "last_error = ''"), "killed", "does not say when and why"),
    "no code": (lambda k: k.set("failed", "error_code = NULL"), "killed", "does not say when and why"),
    "neither retryable nor not": (lambda k: k.set("failed", "retryable = NULL"), "killed", "does not say when and why"),
    "failed and names files": (
        lambda k: k.set("failed", """processed_paths = '{"large": "x"}'"""),
        "settled",
        "names files that it does not need",
    ),
    "a draft of a secret": (lambda k: put(k.folder / "data/.url_key.0123456789abcdef"), "stopped", "is left over"),
    "a folder of another": (lambda k: put(k.folder / "data/instance", b"x\n"), "stopped", "that of the database"),
    "a storage of another": (lambda k: put(k.folder / "data/storage/.instance", b"x\n"), "stopped", "of the database"),
    "a person in a deleted row": (lambda k: k.set("deleted", "user_id = 'alice'"), "killed", "what its user said"),
    "deleted and names files": (lambda k: k.set("deleted", "staging_path = 'x'"), "settled", "still names files"),
    "a variant less": (
        lambda k: k.set("completed", "processed_paths = json_remove(processed_paths, '$.large')"),
        "killed",
        "has the variants",
    ),
    "no file of a variant": (lambda k: k.variant().unlink(), "killed", "has lost its variant large"),
    "a link for a variant": (lambda k: link(k.variant()), "killed", "has lost its variant large"),
    "a variant of another size": (lambda k: put(k.variant()), "killed", "variant large of 1 bytes instead of"),
    "a variant of other bytes": (lambda k: swap(k.variant()), "killed", "variant large of other bytes"),
    "a file of no row": (lambda k: put(k.variant().with_name(f"{UNKNOWN}_large.webp")), "killed", "no row names it"),
    "a file of a deleted row": (lambda k: put(k.variant(kind="deleted")), "killed", "does not name it"),
    "a file of a failed row": (lambda k: put(k.variant(kind="failed")), "killed", "does not name it"),
    "a half-written file": (
        lambda k: put(k.variant().with_name(f".{k.variant().name}.partial")),
        "stopped",
        "a half-written file of",
    ),
    "a staged file of no row": (lambda k: put(k.staged(UNKNOWN)), "stopped", f"{UNKNOWN}: no row names it"),
    "an upload that is over": (
        lambda k: put(k.staged(f"{k.jobs['pending']}.part")),
        "settled",
        "its upload is over",
    ),
    "scratch": (lambda k: put(k.folder / "data/scratch/x.1/large.webp"), "stopped", "x.1 is left over"),
    "no event of the receipt": (
        lambda k: k.sql("DELETE FROM image_upload_events WHERE id > 1 AND event_type = 'accepted'"),
        "killed",
        "0 events 'accepted' instead of 1",
    ),
    "two ends": (
        lambda k: k.sql(
            "INSERT INTO image_upload_events (event_type, job_id, created_at) VALUES ('completed', ?, '')",
            k.jobs["completed"],
        ),
        "killed",
        "2 events 'completed' instead of 1",
    ),
    "a run of no event": (lambda k: k.set("completed", "run = 7"), "killed", "is at run 7, and its events tell of 2"),
    "an event of no row": (
        lambda k: k.sql("DELETE FROM processing_jobs WHERE job_id = ?", k.jobs["failed"]),
        "killed",
        "that has no row",
    ),
    "a sum of jobs": (
        lambda k: k.sql("UPDATE job_sums SET total = 9 WHERE kind = 'jobs' AND name = 'failed'"),
        "killed",
        "sum of jobs of failed is 9; a scan finds 2",
    ),
    "a sum of bytes": (
        lambda k: k.sql("UPDATE job_sums SET total = total + 1 WHERE kind = 'bytes' AND name = 'large'"),
        "killed",
        "sum of bytes of large",
    ),
    "a damaged database": (damage_page, "killed", "The database is damaged"),
    "an old schema": (lambda k: k.sql("PRAGMA user_version = 1"), "stopped", "schema's version is 1"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_violation_is_reported(kept: Kept, name: str) -> None:
    plant, state, words = PLANTED[name]
    plant(kept)
    found = faults(kept.places, state)
    assert any(words in sentence for sentence in found), found
    with pytest.raises(AssertionError, match="invariants do not hold"):
        assert_sound(kept.places, state)


def test_all_violations_are_reported_at_once(kept: Kept) -> None:
    kept.variant().unlink()
    kept.set("pending", "queue = NULL")
    kept.set("failed", "last_error = NULL")
    found = faults(kept.places, "killed")
    assert len(found) == 3 and all(sentence.endswith(".") for sentence in found)
    assert json.dumps(found).count("Job ") == 3
