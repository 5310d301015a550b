"""A backup that is damaged, foreign, old or cut short: nothing that is there is lost, and the restore goes on."""

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from fixtures import make
from imgsvc.jobs.lock import DataFolderInUse
from imgsvc.jobs.revocations import NAME as REVOCATIONS
from imgsvc.maintenance.backup.restore import restore
from imgsvc.maintenance.progress import MaintenanceFailed, Progress
from imgsvc.storage.local import LocalStorage
from tests.support.backups import backed_up, put_back, settings_of, several
from tests.support.maintenance import carried_out, files, keeping, variants
from tests.support.older_database import back_to_schema
from tests.support.receiver import Receiver

TINY = make.tiny()


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
    stays = ("lock", REVOCATIONS)
    assert {name for name in before if name not in stays and not name.startswith("scratch/")} <= files(aside)
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
    before, rename = files(tmp_path / "one" / "data") - {"lock", REVOCATIONS}, Path.rename

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


async def test_deliveries_that_waited_are_held_until_they_are_replayed(tmp_path: Path) -> None:
    """They may have been delivered since the backup was made."""
    with Receiver() as receiver:
        endpoint = receiver.settings(events=["image.completed"])
        nowhere = endpoint | {"url": "http://127.0.0.1:9/hook"}
        async with keeping(tmp_path / "one", webhooks={"endpoints": [nowhere]}) as s:
            await several(s, 1)
            await backed_up(s, tmp_path / "backup")
        await put_back(tmp_path / "backup", tmp_path / "two")
        async with keeping(tmp_path / "two", webhooks={"endpoints": [endpoint]}) as s:
            assert [row[0] for row in await s.sql("SELECT state FROM webhook_outbox")] == ["held"]
            assert receiver.received == []
            path = "/api/v1/operator/webhooks/app/replay"
            answer = await s.http.post(path, json={}, headers=s.operator)
            assert (answer.status_code, answer.json()) == (202, {"replayed": 1})
            assert [one.type for one in await receiver.gets(1)] == ["image.completed"]
