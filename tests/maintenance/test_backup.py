"""A backup is of one moment, made beside a live service; put back, it is that service again."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from fixtures import make
from imgsvc.jobs.table.model import now
from imgsvc.maintenance.backup.folder import BackupFolder, Manifest
from imgsvc.maintenance.backup.restore import restore
from imgsvc.maintenance.progress import MaintenanceFailed, Progress
from imgsvc.storage.local import LocalStorage
from tests.conftest import WAIT_SECONDS, Service
from tests.support.backups import Waiting, backed_up, put_back, settings_of, several
from tests.support.maintenance import SIZES, begin, carried_out, ended, files, keeping, key, variants
from tests.support.other_storage import Other
from tests.support.speed import within

TINY = make.tiny()


class Load:
    """Uploads, every second of which is deleted again."""

    def __init__(self) -> None:
        self.receipts: list[str] = []
        self.deleted: set[str] = set()
        self.stop = anyio.Event()

    @property
    def kept(self) -> set[str]:
        return set(self.receipts) - self.deleted

    async def upload(self, s: Service, seed: int) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            accepted = (await s.upload(make.jpeg(200, 150, seed * 1000 + number))).json()
            self.receipts.append(accepted["job_id"])
            if number % 2 == 0:
                image_id = accepted["image_id"]
                assert (await s.http.delete(f"/api/v1/images/{image_id}", headers=s.bearer())).status_code == 200
                self.deleted.add(accepted["job_id"])


def assert_it_is_another_instance_with_the_same_secrets(data: Path, original: Path) -> None:
    def read(folder: Path, *names: str) -> set[str]:
        return {(folder / name).read_text() for name in names}

    ids = {text.split()[0] for text in read(data, "instance", "storage/.instance")}
    with closing(sqlite3.connect(data / "imgsvc.db")) as db:
        ids.update(row[0] for row in db.execute("SELECT id FROM service_instance WHERE storage_marked"))
    assert len(ids) == 1 and ids != {text.split()[0] for text in read(original, "instance")}
    assert {path.stat().st_mode & 0o777 for path in data.iterdir() if path.is_file()} == {0o600}
    secrets = ("jwt_secret", "operator_token")
    assert read(data, *secrets) == read(original, *secrets)


async def all_ended(s: Service) -> None:
    unfinished = "SELECT 1 FROM processing_jobs WHERE deleted_at IS NULL AND status NOT IN ('completed', 'failed')"
    with within(WAIT_SECONDS):
        while await s.sql(unfinished) or s.staged():
            await anyio.sleep(0.02)
            await s.state.jobs.housekeeping.sweep()


async def test_under_load_and_put_back_it_is_the_same_service(tmp_path: Path) -> None:
    load = Load()
    backup = tmp_path / "backup"
    async with keeping(tmp_path / "one") as s:
        before = await several(s, 5)
        token = s.bearer()
        async with anyio.create_task_group() as group:
            for seed in range(3):
                group.start_soon(load.upload, s, seed)
            with within(WAIT_SECONDS):
                while len(load.receipts) < 6:
                    await anyio.sleep(0.01)
            accepted = load.kept
            report = await backed_up(s, backup)
            load.stop.set()
        assert (report["well"], report["findings"]) == (True, [])
        s.state.jobs.queue.hold()
        live = accepted - load.deleted
        assert live

    await put_back(backup, tmp_path / "two")
    assert_it_is_another_instance_with_the_same_secrets(tmp_path / "two" / "data", tmp_path / "one" / "data")
    async with keeping(tmp_path / "two") as s:
        for image_id, bytes_of in before.items():
            assert await variants(s, image_id) == bytes_of
        await all_ended(s)
        rows = dict(await s.sql("SELECT job_id, status FROM processing_jobs WHERE deleted_at IS NULL"))
        for job_id in live:
            assert rows[job_id] == "completed"
        assert set(rows.values()) == {"completed"}
        report = await carried_out(s, "verify", digests=True, grace_seconds=0)
        assert (report["well"], report["findings"]) == (True, [])
        assert (await s.http.delete(f"/api/v1/images/{next(iter(before))}", headers=token)).status_code == 200


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


async def test_names_that_an_earlier_backup_has_made_are_synced_before_this_one_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The earlier one may have been killed right after it had named a file, or made a folder."""
    backup, synced, sync = tmp_path / "backup", set[str](), os.fsync
    async with keeping(tmp_path / "one") as s:
        await several(s, 1)
        await backed_up(s, backup)

        def noted(descriptor: int) -> None:
            synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", noted)
        await backed_up(s, backup)
    kept = {path.parent for path in (backup / "variants").rglob("*.webp")}
    assert len(kept) == len(SIZES)
    named = {*kept, *(parent for folder in kept for parent in folder.parents if parent.is_relative_to(backup))}
    assert {str(folder) for folder in named} <= synced
