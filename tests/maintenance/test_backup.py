"""A backup is of one moment, made beside a live service; put back, it is that service again."""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from fixtures import make
from imgsvc import Settings, testing
from imgsvc.jobs import housekeeping
from imgsvc.jobs.lock import DataFolderInUse
from imgsvc.jobs.table.model import now
from imgsvc.maintenance.backup.folder import BackupFolder, Manifest
from imgsvc.maintenance.backup.restore import restore
from imgsvc.maintenance.progress import MaintenanceFailed, Progress
from imgsvc.storage.base import Storage
from imgsvc.storage.local import LocalStorage
from tests.conftest import WAIT_SECONDS, Service
from tests.support.maintenance import SIZES, begin, carried_out, ended, files, keeping, key, variants
from tests.support.older_database import back_to_schema
from tests.support.other_storage import Other

TINY = make.jpeg(64, 48)


def settings_of(folder: Path) -> Settings:
    return testing.settings_in(folder / "data")


def storages_of(folder: Path) -> dict[str, Storage]:
    return {"local": LocalStorage(settings_of(folder).storage.path), "other": Other(folder / "other")}


async def put_back(backup: Path, folder: Path, **options: bool) -> Progress:
    progress, given = Progress(), {"force": False, "dry_run": False, **options}
    await restore(settings_of(folder), storages_of(folder), progress, source=backup, **given)
    return progress


async def backed_up(s: Service, destination: Path, **order: Any) -> dict[str, Any]:
    report = await carried_out(s, "backup", destination=str(destination), **order)
    assert report["state"] == "done", report
    return report


async def several(s: Service, many: int, first: int = 0) -> dict[str, dict[str, bytes]]:
    ids = [(await s.completed(make.jpeg(64, 48, first + number), bucket="a/b"))["image_id"] for number in range(many)]
    return {image_id: await variants(s, image_id) for image_id in ids}


async def test_under_load_and_put_back_it_is_the_same_service(tmp_path: Path) -> None:
    receipts: list[str] = []
    deleted: set[str] = set()
    stop = anyio.Event()

    async def upload(s: Service, seed: int) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            accepted = (await s.upload(make.jpeg(200, 150, seed * 1000 + number))).json()
            receipts.append(accepted["job_id"])
            if number % 4 == 0:
                image_id = accepted["image_id"]
                assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200
                deleted.add(accepted["job_id"])

    backup = tmp_path / "backup"
    async with keeping(tmp_path / "one") as s:
        before = await several(s, 5)
        token = s.bearer()
        async with anyio.create_task_group() as group:
            for seed in range(3):
                group.start_soon(upload, s, seed)
            with anyio.fail_after(WAIT_SECONDS):
                while len(receipts) < 6:
                    await anyio.sleep(0.01)
            accepted = set(receipts) - deleted
            report = await backed_up(s, backup)
            stop.set()
        assert (report["well"], report["findings"]) == (True, [])
        s.state.jobs.queue.hold()
        live = accepted - deleted
        assert live

    await put_back(backup, tmp_path / "two")
    data = tmp_path / "two" / "data"
    ids = {(tmp_path / "two" / "data" / name).read_text().split()[0] for name in ("instance", "storage/.instance")}
    with closing(sqlite3.connect(data / "imgsvc.db")) as db:
        ids.update(row[0] for row in db.execute("SELECT id FROM service_instance WHERE storage_marked"))
    assert len(ids) == 1 and ids != {(tmp_path / "one" / "data" / "instance").read_text().split()[0]}
    assert {path.stat().st_mode & 0o777 for path in data.iterdir() if path.is_file()} == {0o600}
    assert {(data / name).read_text() for name in ("jwt_secret", "operator_token")} == {
        (tmp_path / "one" / "data" / name).read_text() for name in ("jwt_secret", "operator_token")
    }
    async with keeping(tmp_path / "two") as s:
        for image_id, bytes_of in before.items():
            assert await variants(s, image_id) == bytes_of
        with anyio.fail_after(WAIT_SECONDS):
            while (
                await s.sql("SELECT 1 FROM processing_jobs WHERE status NOT IN ('completed', 'failed')")
            ) or s.staged():
                await anyio.sleep(0.02)
                await s.state.jobs.housekeeping.sweep()
        rows = dict(await s.sql("SELECT job_id, status FROM processing_jobs WHERE deleted_at IS NULL"))
        for job_id in live:
            assert rows[job_id] == "completed"
        assert set(rows.values()) == {"completed"}
        report = await carried_out(s, "verify", digests=True, grace_seconds=0)
        assert (report["well"], report["findings"]) == (True, [])
        assert (await s.http.delete(f"/api/v1/images/{next(iter(before))}", headers=token)).status_code == 200


class Waiting(LocalStorage):
    """Waits before the first file is copied out of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:
        self.asked.set()
        await self.go.wait()
        await super().fetch(bucket, key, target, size)


async def emptied(names: Callable[[], list[str]]) -> None:
    """Wait for the sweep after a backup, which is done before it."""
    with anyio.fail_after(WAIT_SECONDS):
        while names():
            await anyio.sleep(0.01)


async def test_what_is_removed_meanwhile_is_in_it_and_goes_after_it(tmp_path: Path) -> None:
    storage = Waiting(tmp_path / "one" / "data" / "storage")
    async with keeping(tmp_path / "one", storage=storage) as s:
        images = await several(s, 2)
        one, other = images
        s.state.jobs.queue.hold()
        waiting = await s.upload(TINY)
        broken = await s.upload(make.jpeg(1000, 800)[:80_000])
        await begin(s, "backup", destination=str(tmp_path / "backup"))
        await storage.asked.wait()

        gone = await s.http.delete(f"/api/v1/images/{one}", headers=s.bearer())
        assert gone.json() == {"image_id": one, "deleted": True, "files_removed": 4}
        assert (await s.http.get(f"/api/v1/images/{one}")).status_code == 404
        s.state.jobs.queue._stopping = False
        s.state.jobs.queue.wake()
        assert (await s.ended(waiting))["status"] == "completed"
        assert (await s.ended(broken))["status"] == "failed"
        await s.state.jobs.housekeeping.sweep()
        assert {key(one, size, "a/b") for size in SIZES} <= set(s.stored())
        assert len(s.staged()) == 2

        storage.go.set()
        assert (await ended(s))["well"] is True
        await emptied(s.staged)
        await emptied(lambda: [name for name in s.stored() if one in name])
        assert (await carried_out(s, "verify", grace_seconds=0))["well"] is True
        storage.go.set()

    await put_back(tmp_path / "backup", tmp_path / "two")
    async with keeping(tmp_path / "two") as s:
        assert await variants(s, one) == images[one]
        assert (await s.ended(waiting))["status"] == "completed"
        assert (await s.ended(broken))["status"] == "failed"
        assert other in images


class Silent(Waiting):
    async def size(self, bucket: str, key: str) -> int | None:
        await anyio.sleep_forever()
        raise AssertionError


async def test_deletion_during_a_backup_does_not_wait_for_a_store_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "WITHDRAW_SECONDS", 0.2)
    storage = Silent(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s:
        (image_id,) = await several(s, 1)
        await begin(s, "backup", destination=str(tmp_path / "backup"))
        await storage.asked.wait()
        with anyio.fail_after(WAIT_SECONDS):
            gone = await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())
        assert gone.json()["deleted"] is True
        storage.go.set()
        assert (await ended(s))["well"] is True
        await emptied(s.stored)


async def test_failed_job_waits_for_the_backup_before_it_begins_anew(tmp_path: Path) -> None:
    async with keeping(tmp_path, jobs={"max_attempts": 1}) as s:
        blocked = s.settings.storage.path / "photos"
        blocked.parent.mkdir(exist_ok=True)
        blocked.write_bytes(b"")
        job = await s.ended(await s.upload(TINY))
        with anyio.fail_after(WAIT_SECONDS):  # until the run has removed what it had put
            while await s.sql("SELECT processed_paths FROM processing_jobs") != [("{}",)]:
                await anyio.sleep(0.01)
        await s.sql('UPDATE processing_jobs SET processed_paths = \'{"large": "x"}\'')
        blocked.unlink()
        address = f"/api/v1/operator/jobs/{job['job_id']}/retry"
        with s.state.jobs.housekeeping._hold.held():
            refused = await s.http.post(address, headers=s.operator)
            assert refused.status_code == 409 and "backup" in refused.json()["detail"]
        assert (await s.http.post(address, headers=s.operator)).status_code == 202


async def test_second_backup_copies_what_is_new_and_forgets_what_is_gone(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    async with keeping(tmp_path / "one") as s:
        first = await several(s, 3)
        assert (await backed_up(s, backup, dry_run=True))["counts"]["files"] == 12
        assert not backup.exists()
        assert (await backed_up(s, backup))["counts"]["copied"] == 12
        gone, *rest = first
        await s.http.delete(f"/api/v1/images/{gone}", headers=s.bearer())
        second = await several(s, 1, first=50)
        report = await backed_up(s, backup)
        assert (report["counts"]["copied"], report["counts"]["variants"]) == (4, 12)
        kept = {f"variants/{key(image_id, size, 'a/b')}" for image_id in (*rest, *second) for size in SIZES}
        assert {name for name in files(backup) if name.startswith("variants/")} == kept
        assert len(list(backup.glob("database-*"))) == 1

        changed = backup / f"variants/{key(rest[0], 'large', 'a/b')}"
        changed.write_bytes(bytes(changed.stat().st_size))
        assert (await backed_up(s, backup))["counts"].get("copied", 0) == 0
        assert (await backed_up(s, backup, digests=True))["counts"]["copied"] == 1
    await put_back(backup, tmp_path / "two")
    async with keeping(tmp_path / "two") as s:
        for image_id in (*rest, *second):
            assert await variants(s, image_id) == {**first, **second}[image_id]


async def test_backup_that_was_ended_leaves_the_former_one_whole(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    storage = Waiting(tmp_path / "one" / "data" / "storage")
    storage.go.set()
    async with keeping(tmp_path / "one", storage=storage) as s:
        first = await several(s, 2)
        await backed_up(s, backup)
        storage.asked, storage.go = anyio.Event(), anyio.Event()
        gone = next(iter(first))
        await s.http.delete(f"/api/v1/images/{gone}", headers=s.bearer())
        await several(s, 1, first=50)
        await begin(s, "backup", destination=str(backup))
        await storage.asked.wait()
        await s.http.delete("/api/v1/operator/storage/task", headers=s.operator)
        assert (await ended(s))["state"] == "cancelled"
        await s.state.jobs.housekeeping.sweep()
    await put_back(backup, tmp_path / "two")
    async with keeping(tmp_path / "two") as s:
        for image_id in first:
            assert await variants(s, image_id) == first[image_id]


async def test_backup_cut_short_before_its_manifest_leaves_the_former_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = tmp_path / "backup"
    async with keeping(tmp_path / "one") as s:
        images = await several(s, 1)
        secret, former = s.settings.data / "url_key", b"the first key"
        secret.write_bytes(former)
        await backed_up(s, backup)
        secret.write_bytes(b"the second key")

        def full(folder: BackupFolder, manifest: Manifest) -> None:
            raise OSError(28, os.strerror(28))

        with monkeypatch.context() as patched:
            patched.setattr(BackupFolder, "complete", full)
            assert "No space left" in (await carried_out(s, "backup", destination=str(backup)))["error"]
        await put_back(backup, tmp_path / "two")
        assert (tmp_path / "two" / "data" / "url_key").read_bytes() == former
        await backed_up(s, backup)
        kept = [path.read_bytes() for path in (backup / "secrets").iterdir()]
        assert secret.read_bytes() in kept and former not in kept
    await put_back(backup, tmp_path / "three")
    async with keeping(tmp_path / "three") as s:
        for image_id, before in images.items():
            assert await variants(s, image_id) == before


async def test_backup_that_fails_every_night_does_not_fill_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = tmp_path / "backup"

    def full(folder: BackupFolder, manifest: Manifest) -> None:
        raise OSError(28, os.strerror(28))

    async with keeping(tmp_path / "one") as s:
        await several(s, 1)
        await backed_up(s, backup)
        monkeypatch.setattr(BackupFolder, "complete", full)
        for _ in range(3):
            assert (await carried_out(s, "backup", destination=str(backup)))["state"] == "failed"
        assert len(list(backup.glob("database-*"))) == 2
    await put_back(backup, tmp_path / "two")


async def test_what_the_service_has_lost_itself_is_said_and_does_not_hinder(tmp_path: Path) -> None:
    async with keeping(tmp_path / "one") as s:
        lost, damaged, well = images = list(await several(s, 3))
        (s.settings.storage.path / key(lost, "large", "a/b")).unlink()
        (s.settings.storage.path / key(damaged, "large", "a/b")).write_bytes(b"?")
        report = await backed_up(s, tmp_path / "backup")
        assert report["well"] is False
        assert [report["counts"][kind] for kind in ("missing", "wrong_digest")] == [1, 1]
    await put_back(tmp_path / "backup", tmp_path / "two")
    async with keeping(tmp_path / "two") as s:
        report = await carried_out(s, "verify", digests=True)
        assert {(one["kind"], one["image_id"]) for one in report["findings"]} == {
            ("missing", lost),
            ("missing", damaged),
        }
        assert set(await variants(s, well)) == set(SIZES) and len(images) == 3


async def test_other_backends_stay_where_they_are_unless_asked(tmp_path: Path) -> None:
    async with keeping(tmp_path / "one") as s:
        images = await several(s, 2)
        await carried_out(s, "migrate", to="other")
        report = await backed_up(s, tmp_path / "without")
        assert report["counts"]["elsewhere"] == 8 and report["counts"].get("variants", 0) == 0
        assert (await backed_up(s, tmp_path / "with", with_s3=True))["counts"]["variants"] == 8
    await put_back(tmp_path / "with", tmp_path / "two")
    assert len(files(tmp_path / "two" / "other")) == 8
    await put_back(tmp_path / "without", tmp_path / "three")
    async with keeping(tmp_path / "three", others=[Other(tmp_path / "two" / "other")]) as s:
        for image_id, before in images.items():
            assert await variants(s, image_id) == before
    progress = Progress()
    only_local = {"local": LocalStorage(tmp_path / "four" / "data" / "storage")}
    with pytest.raises(MaintenanceFailed, match="has images of the backend other"):
        await restore(
            settings_of(tmp_path / "four"), only_local, progress, source=tmp_path / "with", force=False, dry_run=False
        )
    assert not (tmp_path / "four" / "data" / "imgsvc.db").exists()


async def test_where_a_backup_may_not_go(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "letters.txt").write_text("mine")
        (tmp_path / "file").write_text("mine")
        for destination, words in (
            (tmp_path / "full", "neither empty nor a backup"),
            (s.settings.data / "backup", "must be outside"),
            (s.settings.storage.path / "b", "must be outside"),
            (tmp_path / "file", "could not be written"),
        ):
            report = await carried_out(s, "backup", destination=str(destination))
            assert report["state"] == "failed" and words in report["error"], report
        assert (await begin(s, "backup", destination="relative")).status_code == 422
        assert files(tmp_path / "full") == {"letters.txt"}


async def test_first_backup_that_was_killed_as_it_began_is_made_again(tmp_path: Path) -> None:
    begun = tmp_path / "backup"
    begun.mkdir()
    (begun / ".imgsvc-backup.txt.partial").write_bytes(b"")
    async with keeping(tmp_path) as s:
        await backed_up(s, begun)
    assert ".imgsvc-backup.txt.partial" not in files(begun)


@contextmanager
def harmed(backup: Path, path: Path, change: str) -> Iterator[None]:
    data = path.read_bytes()
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if change == "bit" else data[:-1])
    yield
    path.write_bytes(data)


async def test_damaged_backup_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    async with keeping(tmp_path / "one") as s:
        await several(s, 1)
        s.state.jobs.queue.hold()
        await s.upload(TINY)
        await backed_up(s, backup)
    names = [name for name in sorted(files(backup)) if name != "imgsvc-backup.txt"]
    assert len(names) == 1 + 1 + 4 + 1 + 2  # manifest, database, variants, source, secrets
    for name in names:
        for change in ("gone", "bit", "short"):
            if name == "manifest.json" and change == "bit":
                continue  # its last byte is a line's end
            with harmed(backup, backup / name, change):
                if name == "manifest.json" and change == "short":
                    (backup / name).write_bytes((backup / name).read_bytes()[:-20])
                for dry_run in (True, False):
                    with pytest.raises(MaintenanceFailed, match=r"damaged|no manifest"):
                        await put_back(backup, tmp_path / "two", dry_run=dry_run)
            assert not files(tmp_path / "two") - {"data/lock"}
    assert (await put_back(backup, tmp_path / "two", dry_run=True)).counts == {"files": 5}
    assert not files(tmp_path / "two") - {"data/lock"}
    with pytest.raises(MaintenanceFailed, match="no backup of imgsvc"):
        await put_back(tmp_path / "nowhere", tmp_path / "two")


async def test_names_in_a_backup_do_not_lead_out_of_it(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    async with keeping(tmp_path / "one") as s:
        await several(s, 1)
        await backed_up(s, backup)
    (database,) = backup.glob("database-*")
    for column, value in (("storage_bucket", "../../../x"), ("staging_path", "../../x")):
        evil = tmp_path / f"evil-{column}"
        shutil.copytree(backup, evil)
        with closing(sqlite3.connect(evil / database.name)) as db, db:
            db.execute(f"UPDATE processing_jobs SET {column} = ?, status = ?", (value, "completed"))
            if column == "staging_path":
                db.execute("UPDATE processing_jobs SET status = 'pending'")
        trusted_again(backup, evil)
        with pytest.raises(MaintenanceFailed, match="outside of itself"):
            await put_back(evil, tmp_path / "two")
    manifest = (backup / "manifest.json").read_text()
    lying = manifest.replace('"operator_token": ', '"lock": ')
    assert lying != manifest
    (backup / "manifest.json").write_text(lying)
    with pytest.raises(MaintenanceFailed, match="names secrets"):
        await put_back(backup, tmp_path / "two")


def trusted_again(backup: Path, changed: Path) -> None:
    """The manifest says of the changed database what it said of the first."""
    (database,) = backup.glob("database-*")
    manifest = (changed / "manifest.json").read_text()
    old, new = (digest(path / database.name) for path in (backup, changed))
    (changed / "manifest.json").write_text(manifest.replace(old, new))


async def test_backup_of_an_earlier_version_is_put_back(tmp_path: Path) -> None:
    backup, older = tmp_path / "backup", tmp_path / "older"
    async with keeping(tmp_path / "one") as s:
        images = await several(s, 1)
        await backed_up(s, backup)
    shutil.copytree(backup, older)
    (database,) = older.glob("database-*")
    with closing(sqlite3.connect(database)) as db:
        back_to_schema(db, 1)
    trusted_again(backup, older)
    await put_back(older, tmp_path / "two")
    async with keeping(tmp_path / "two") as s:
        for image_id, before in images.items():
            assert await variants(s, image_id) == before


@pytest.mark.parametrize(
    "harm", ["DROP TABLE processing_jobs", "UPDATE processing_jobs SET processed_paths = 'no JSON'"]
)
async def test_database_that_can_not_be_understood_is_said_in_words(tmp_path: Path, harm: str) -> None:
    backup, other = tmp_path / "backup", tmp_path / "other-backup"
    async with keeping(tmp_path / "one") as s:
        await several(s, 1)
        await backed_up(s, backup)
    shutil.copytree(backup, other)
    (database,) = other.glob("database-*")
    with closing(sqlite3.connect(database)) as db, db:
        db.execute(harm)
    trusted_again(backup, other)
    with pytest.raises(MaintenanceFailed, match=r"no such table|can't be understood"):
        await put_back(other, tmp_path / "two")
    assert not files(tmp_path / "two") - {"data/lock"}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_what_is_there_is_moved_aside_and_never_overwritten(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    async with keeping(tmp_path / "one") as s:
        images = await several(s, 1)
        await backed_up(s, backup)
        with pytest.raises(DataFolderInUse):
            await put_back(backup, tmp_path / "one", force=True)
        later = await several(s, 1, first=50)
    before = files(tmp_path / "one" / "data")
    with pytest.raises(MaintenanceFailed, match="--force"):
        await put_back(backup, tmp_path / "one")
    assert files(tmp_path / "one" / "data") == before
    await put_back(backup, tmp_path / "one", force=True)
    (aside,) = (tmp_path / "one" / "data").glob("replaced-*")
    assert {name for name in before if name != "lock" and not name.startswith("scratch/")} <= files(aside)
    async with keeping(tmp_path / "one") as s:
        for image_id, bytes_of in images.items():
            assert await variants(s, image_id) == bytes_of
        for image_id in later:
            assert (await s.http.get(f"/api/v1/images/{image_id}")).status_code == 404
        assert (await carried_out(s, "verify", grace_seconds=0))["well"] is True


async def test_mount_point_is_refused_before_anything_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup = tmp_path / "backup"
    async with keeping(tmp_path / "one") as s:
        await several(s, 1)
        await backed_up(s, backup)
    before = files(tmp_path / "one")
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path).name == "storage")  # the real one wants a mount
    with pytest.raises(MaintenanceFailed, match="mount point"):
        await put_back(backup, tmp_path / "one", force=True)
    assert files(tmp_path / "one") == before
    async with keeping(tmp_path / "one") as s:
        assert (await carried_out(s, "verify", digests=True))["well"] is True


async def test_moving_aside_that_is_cut_short_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database without its log, for one: a service that started on that would begin a new one over the log."""
    backup, moved = tmp_path / "backup", 0
    async with keeping(tmp_path / "one") as s:
        images = await several(s, 1)
        await backed_up(s, backup)
    before, rename = files(tmp_path / "one" / "data") - {"lock"}, Path.rename

    def one_only(path: Path, target: Path) -> Path:
        nonlocal moved
        moved += 1
        if moved > 1:
            raise OSError(16, os.strerror(16))
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", one_only)
        with pytest.raises(MaintenanceFailed, match="busy"):
            await put_back(backup, tmp_path / "one", force=True)
    with pytest.raises(DataFolderInUse, match="not finished"):
        async with keeping(tmp_path / "one"):
            pass
    with pytest.raises(MaintenanceFailed, match="--force"):
        await put_back(backup, tmp_path / "one")
    await put_back(backup, tmp_path / "one", force=True)
    aside = [files(folder) for folder in (tmp_path / "one" / "data").glob("replaced-*")]
    assert {name for name in before if not name.startswith("scratch/")} == set().union(*aside)
    async with keeping(tmp_path / "one") as s:
        for image_id, bytes_of in images.items():
            assert await variants(s, image_id) == bytes_of


class Failing(LocalStorage):
    def __init__(self, root: Path, after: int) -> None:
        super().__init__(root)
        self.left = after

    async def put(self, bucket: str, key: str, source: Path) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, os.strerror(28))
        await super().put(bucket, key, source)


async def test_half_a_restore_starts_no_service_and_goes_on(tmp_path: Path) -> None:
    backup, two = tmp_path / "backup", tmp_path / "two"
    async with keeping(tmp_path / "one") as s:
        images = await several(s, 2)
        await backed_up(s, backup)
    settings = settings_of(two)
    half = {"local": Failing(settings.storage.path, 5)}
    with pytest.raises(MaintenanceFailed, match="No space left"):
        await restore(settings, half, Progress(), source=backup, force=False, dry_run=False)
    with pytest.raises(DataFolderInUse, match=r"restore into .* is not finished"):
        async with keeping(two):
            pass
    await put_back(backup, two)
    async with keeping(two) as s:
        for image_id, before in images.items():
            assert await variants(s, image_id) == before


async def test_files_of_a_backup_are_its_owner_s_alone(tmp_path: Path) -> None:
    async with keeping(tmp_path) as s:
        await several(s, 1)
        await backed_up(s, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert now().isoformat()[:10] in (tmp_path / "backup" / "manifest.json").read_text()


async def test_stray_files_in_a_backup_break_none_and_are_left_alone(tmp_path: Path) -> None:
    """Of a file manager, or of a program that copies the backup on."""
    backup = tmp_path / "backup"
    async with keeping(tmp_path / "one") as s:
        await several(s, 1)
        await backed_up(s, backup)
        strays = [backup / "variants" / ".DS_Store", backup / "variants" / "a" / "Thumbs.db"]
        for stray in strays:
            stray.write_bytes(b"x")
        for name in ("staged", "secrets"):
            (backup / name / ".sync").mkdir()
        (backup / "database-old").mkdir()
        for _ in range(2):
            assert (await backed_up(s, backup))["well"] is True
        assert all(stray.exists() for stray in strays)


class Stuck(LocalStorage):
    """Removes nothing, and never answers."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked = 0

    async def remove(self, bucket: str, key: str) -> bool:
        if not bucket.startswith(".health"):
            self.asked += key.startswith("processed/large/")
            await anyio.sleep_forever()
        return False


async def test_storage_that_hangs_is_left_alone_after_three_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgsvc.jobs.publish.WITHDRAW_SECONDS", 0.05)
    storage = Stuck(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s:
        images = await several(s, 8)
        with s.state.jobs.housekeeping._hold.held():
            for image_id in images:
                await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())
        await s.state.jobs.housekeeping.sweep()
        assert storage.asked == 3


async def test_backup_is_done_before_what_was_held_back_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage hangs: the next task need not wait for it."""
    monkeypatch.setattr("imgsvc.jobs.publish.WITHDRAW_SECONDS", WAIT_SECONDS * 2)
    storage = Stuck(tmp_path / "data" / "storage")
    async with keeping(tmp_path, storage=storage) as s:
        first, _ = await several(s, 2)
        with s.state.jobs.housekeeping._hold.held():
            await s.http.delete(f"/api/v1/images/{first}", headers=s.bearer())
        assert (await backed_up(s, tmp_path / "backup"))["well"] is True
        with anyio.fail_after(WAIT_SECONDS):
            while not storage.asked:
                await anyio.sleep(0.01)
        assert (await carried_out(s, "verify"))["state"] == "done"
