"""Database, data folder and storage folder belong together, or nothing is served, made or removed."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from fixtures import make
from imgsvc import Settings, testing
from imgsvc.cli.adopt import words
from imgsvc.jobs import settlement
from imgsvc.jobs.instance import InstanceMismatch, identify, places_of
from imgsvc.maintenance.adopt import adopt
from imgsvc.storage import durable_files
from tests.conftest import WAIT_SECONDS, Service, service
from tests.support import processes
from tests.support.maintenance import begin, ended
from tests.support.older_database import back_to_schema
from tests.support.server_process import ROOT
from tests.support.speed import within

TINY = make.tiny()
COPIES = 3


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the lock, and the index that SQLite makes of a log."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in found
        if path.name != "lock" and not path.name.endswith("-shm")
    }


async def killed(folder: Path) -> Path:
    """A data folder as a kill leaves it, with accepted uploads that nothing was done with yet."""
    async with service(folder) as s:
        s.state.jobs.queue.hold()
        for seed in range(COPIES):
            assert (await s.upload(make.tiny(seed))).status_code == 202
        return Path(shutil.copytree(folder, folder.with_name("killed")))


def settings_of(folder: Path, **sections: dict[str, Any]) -> Settings:
    return testing.settings_in(folder, **sections)


async def refused(settings: Settings) -> str:
    with pytest.raises(InstanceMismatch) as raised:
        async with testing.serving(settings):
            pass
    return str(raised.value)


def damage(path: Path) -> None:
    path.write_bytes(bytes(32) + path.read_bytes()[32:])


def remove_all(database: Path) -> None:
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


LOSSES: dict[str, Callable[[Path], object]] = {
    "typo": lambda database: database.rename(database.with_name("right.db")),
    "removed": lambda database: database.unlink(),
    "emptied": lambda database: database.write_bytes(b""),
    "log removed": lambda database: Path(f"{database}-wal").unlink(),
    "log damaged": lambda database: damage(Path(f"{database}-wal")),
    "all removed": lambda database: remove_all(database),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_start_without_the_database_of_accepted_uploads_is_refused_and_changes_nothing(
    tmp_path: Path, loss: str
) -> None:
    folder = await killed(tmp_path / "data")
    LOSSES[loss](folder / "imgsvc.db")
    before = contents(folder)
    assert sum(name.startswith("staging/") for name in before) == COPIES
    message = await refused(settings_of(folder))
    assert str(folder / "imgsvc.db") in message
    assert contents(folder) == before


async def test_database_that_lost_its_rows_with_its_log_is_noticed_too(tmp_path: Path) -> None:
    """The id was in the file by then: an earlier start had been stopped in peace."""
    async with service(tmp_path / "data"):
        pass
    folder = await killed(tmp_path / "data")
    Path(f"{folder / 'imgsvc.db'}-wal").unlink()
    found = identify(places_of(settings_of(folder)))
    assert found.database == found.folder is not None and not found.has_jobs
    assert "holds no job" in await refused(settings_of(folder))


async def test_kill_amid_the_very_first_upload_is_no_lost_database(tmp_path: Path) -> None:
    async with service(tmp_path / "data") as s:
        (s.settings.data / "staging" / "00000000-0000-4000-8000-000000000000").write_bytes(TINY)
    async with service(tmp_path / "data") as s:
        assert (await s.completed(TINY))["status"] == "completed"


async def test_upload_set_aside_by_this_database_keeps_no_service_without_jobs_from_starting(tmp_path: Path) -> None:
    orphan = tmp_path / "data" / "orphaned" / "00000000-0000-4000-8000-000000000000"
    async with service(tmp_path / "data") as s:
        await s.completed(TINY)
        await s.sql("DELETE FROM processing_jobs")
    shutil.rmtree(s.settings.storage.path / "photos")
    orphan.parent.mkdir()
    orphan.write_bytes(TINY)
    async with service(tmp_path / "data") as s:
        assert (await s.completed(TINY))["status"] == "completed"
    assert orphan.read_bytes() == TINY
    remove_all(s.settings.database.path)
    assert str(orphan.parent) in await refused(s.settings)  # another database's


async def test_service_whose_images_were_all_deleted_long_ago_starts(tmp_path: Path) -> None:
    """Beside a stored file that no row names: the rows of deletions go, and the latest tells that nothing was lost."""
    async with service(tmp_path / "data") as s:
        for seed in range(2):
            image_id = (await s.completed(make.tiny(seed)))["image_id"]
            stray = s.settings.storage.path / "photos" / "processed" / "large" / f"{image_id}_large.webp"
            assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200
        await s.sql("UPDATE processing_jobs SET deleted_at = '2020-01-01T00:00:00.000000+00:00'")
        await s.state.jobs.housekeeping.sweep()
        assert await s.sql("SELECT image_id FROM processing_jobs") == [(image_id,)]
    stray.write_bytes(TINY)
    async with service(tmp_path / "data") as s:
        assert (await s.completed(TINY))["status"] == "completed"


def test_command_says_it_in_one_line_and_exits_with_2(tmp_path: Path) -> None:
    folder = anyio.run(killed, tmp_path / "data")
    before = contents(folder)
    environ = {
        "PYTHONPATH": str(ROOT),
        "DATABASE_PATH": str(folder / "typo.db"),
        "STORAGE_PATH": str(folder / "storage"),
    }
    found = processes.run(["serve", "--port", "0"], folder=tmp_path, environ=environ)
    assert found.returncode == 2 and found.stdout == ""
    (line,) = found.stderr.splitlines()
    assert str(folder / "staging") in line and "imgsvc storage adopt" in line
    assert contents(folder) == before


async def test_mistyped_folder_is_not_made(tmp_path: Path) -> None:
    storage = {"path": tmp_path / "photos"}
    async with service(tmp_path / "data", storage=storage) as s:
        await s.completed(TINY)
    assert "belongs to another service" in await refused(settings_of(tmp_path / "dtaa", storage=storage))
    assert not (tmp_path / "dtaa").exists()


async def test_second_service_on_one_storage_folder_is_refused(tmp_path: Path) -> None:
    storage = {"path": tmp_path / "photos"}
    async with service(tmp_path / "one", storage=storage) as one:
        image_id = (await one.completed(TINY))["image_id"]
        async with service(tmp_path / "two") as two:
            await two.completed(TINY)
        assert "belongs to another service" in await refused(settings_of(tmp_path / "two", storage=storage))
        assert await one.variant(image_id, "large")


def marker(s: Service | Settings) -> str:
    settings = s.settings if isinstance(s, Service) else s
    return (settings.storage.path / ".instance").read_text().strip()


async def storage_health(s: Service) -> dict[str, Any]:
    await s.state.telemetry.health.measure()
    found: dict[str, Any] = (await s.http.get("/api/v1/health")).json()["checks"]["storage"]
    return found


async def test_disk_that_is_not_mounted_takes_nothing_and_all_goes_on_once_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "RECORD_AGAIN_SECONDS", 0.05)
    path, away = tmp_path / "mnt" / "photos", tmp_path / "disk"
    async with service(tmp_path / "data", storage={"path": path}) as s:
        image_id = (await s.completed(TINY))["image_id"]
    path.rename(away)
    async with service(tmp_path / "data", storage={"path": path}) as s:
        found = await storage_health(s)
        assert found["status"] == "unhealthy" and "mounted" in found["detail"]
        for place in ("", "an empty folder"):
            if place:
                path.mkdir()
            address = f"/api/v1/images/{image_id}/direct"
            assert (await s.http.get(address)).status_code == 503
            accepted = await s.upload(TINY)
            assert accepted.status_code == 202
            assert (await begin(s, "gc", dry_run=False)).status_code == 202
            assert "could not be read" in (await ended(s))["error"]
            assert not path.exists() or not list(path.iterdir())
        path.rmdir()
        away.rename(path)
        assert (await s.ended(accepted))["status"] == "completed"
        assert (await storage_health(s))["status"] == "healthy"
        assert await s.variant(image_id, "large")


async def test_deletion_is_not_confirmed_by_a_disk_that_is_not_mounted(tmp_path: Path) -> None:
    async with service(tmp_path / "data") as s:
        image_id = (await s.completed(TINY))["image_id"]
        path = s.settings.storage.path
        path.rename(tmp_path / "away")
        deleted = await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())
        assert deleted.json()["files_removed"] == 0
        (tmp_path / "away").rename(path)
        await s.state.jobs.housekeeping.sweep()
        assert s.stored() == []


def as_of_0_1_0(settings: Settings) -> None:
    """Nothing but the data folder had an id, and schema 3 knew none."""
    (settings.storage.path / ".instance").unlink()
    with closing(sqlite3.connect(settings.database.path)) as db:
        back_to_schema(db, 3)


async def test_first_start_after_0_1_0_gives_the_id_to_all_three(tmp_path: Path) -> None:
    async with service(tmp_path / "data") as s:
        image_id, before = (await s.completed(TINY))["image_id"], marker(s)
    as_of_0_1_0(s.settings)
    async with service(tmp_path / "data") as s:
        assert await s.variant(image_id, "large")
        assert await s.sql("SELECT id, storage_marked FROM service_instance") == [(before, 1)]
        assert marker(s) == before == (s.settings.data / "instance").read_text().split()[0]


async def test_disk_that_is_not_mounted_at_the_first_start_after_0_1_0_is_claimed_once_it_is(tmp_path: Path) -> None:
    async with service(tmp_path / "data") as s:
        image_id = (await s.completed(TINY))["image_id"]
    as_of_0_1_0(s.settings)
    path = s.settings.storage.path
    path.rename(tmp_path / "away")
    path.mkdir()
    async with service(tmp_path / "data") as s:
        assert (await storage_health(s))["status"] == "unhealthy"
        assert list(path.iterdir()) == []
        path.rmdir()
        (tmp_path / "away").rename(path)
        assert (await storage_health(s))["status"] == "healthy"
        assert marker(s) == s.state.maintenance._context.instance
        assert await s.variant(image_id, "large")


async def test_new_storage_folder_of_an_old_database_is_adopted(tmp_path: Path) -> None:
    async with service(tmp_path / "data") as s:
        await s.completed(TINY)
        found = await anyio.to_thread.run_sync(identify, places_of(s.settings))
    storage = {"path": tmp_path / "larger"}
    async with service(tmp_path / "data", storage=storage) as s:
        assert (await storage_health(s))["status"] == "unhealthy"
    seen = await adopt(s.settings, dry_run=True)
    assert (seen.jobs, seen.storage_folder_id, seen.done) == ({"completed": 1}, None, False)
    assert not storage["path"].exists()
    done = await adopt(s.settings, dry_run=False)
    assert done == replace(seen, instance=found.database, done=True)
    assert "Nothing was removed" in words(done) and "Add --yes" in words(seen)
    async with service(tmp_path / "data", storage=storage) as s:
        assert (await storage_health(s))["status"] == "healthy"
        await s.completed(make.tiny(2))


async def test_going_on_without_the_lost_database_removes_nothing(tmp_path: Path) -> None:
    async with service(tmp_path / "data") as s:
        await s.completed(TINY)
        s.state.jobs.queue.hold()
        await s.upload(make.tiny(1))
    for path in s.settings.data.glob("imgsvc.db*"):
        path.unlink()
    before = contents(s.settings.data)
    await refused(s.settings)
    seen = await adopt(s.settings, dry_run=True)
    assert (seen.jobs, seen.uploads, seen.stored_files, seen.database_id) == ({}, 1, 4, None)
    assert contents(s.settings.data) == before
    done = await adopt(s.settings, dry_run=False)
    after = contents(s.settings.data)
    assert {name for name in before if before[name] != after.get(name)} == {"instance", "storage/.instance"}
    assert done.instance not in (None, seen.data_folder_id)
    async with service(tmp_path / "data") as s:
        assert marker(s) == done.instance
        assert len(s.stored()) == 4


async def test_lock_of_a_running_service_is_respected(tmp_path: Path) -> None:
    from imgsvc.jobs.lock import DataFolderInUse

    async with service(tmp_path / "data") as s:
        with pytest.raises(DataFolderInUse), within(WAIT_SECONDS):
            await adopt(s.settings, dry_run=True)


async def test_new_data_folder_is_durable_in_those_above_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a loss of power takes it away with all that was accepted."""
    synced, sync = set[Path](), durable_files.sync_folder

    def sync_folder(folder: Path) -> None:
        synced.add(folder)
        sync(folder)

    monkeypatch.setattr(durable_files, "sync_folder", sync_folder)
    async with service(tmp_path / "new" / "data"):
        pass
    assert {tmp_path, tmp_path / "new", tmp_path / "new" / "data"} <= synced
