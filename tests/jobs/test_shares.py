"""Data and storage folders on file systems that lack what a local disk has: CIFS, FUSE, virtiofs, 9p, NFS, exFAT.

None of them can be mounted in a test, so the one call that they refuse is refused here.
"""

import asyncio
import errno
import fcntl
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from structlog.testing import capture_logs

from fixtures import make
from imgsvc.cli.doctor import folders
from imgsvc.cli.errors import CommandFailed
from imgsvc.cli.service_client import running
from imgsvc.jobs.data_folder import open_data_folder
from imgsvc.jobs.lock import LocksUnavailable, data_folder_lock, holder
from imgsvc.jobs.table.database import NoWriteAheadLog, open_for_writing
from imgsvc.maintenance.backup import folder as backup_folder
from imgsvc.service import server
from imgsvc.service.listener import CantStart
from imgsvc.settings import Settings
from imgsvc.storage import durable_files, mounts
from imgsvc.storage.durable_files import sync_folder
from imgsvc.telemetry import logs
from imgsvc.testing import settings_in
from tests.conftest import Starter
from tests.support.maintenance import carried_out

RANDOM_USER = 1_000_650_000  # as OpenShift picks one, with the group 0
ON_NFS = "22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:30 / / rw - nfs4 nas:/x rw\n"


@pytest.fixture(autouse=True)
def nothing_was_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_files, "_warned", set())
    monkeypatch.setattr(backup_folder, "_warned", set())


@pytest.fixture
def on_nfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text(ON_NFS)
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mountinfo")


def refuse_folders(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Answer the fsync of a folder with this error, as its file system would."""
    fsync = os.fsync

    def refused(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refused)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.ENOTSUP], ids=errno.errorcode.get)
async def test_without_sync_of_folders_everything_works(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    refuse_folders(monkeypatch, number)
    with capture_logs() as logged:
        async with start() as s:
            for n in range(2):
                image = (await s.completed(make.tiny(n)))["image_id"]
            report = await carried_out(s, "backup", destination=str(tmp_path / "backup"))
            assert report["state"] == "done", report
            answer = await s.http.delete(f"/api/v1/images/{image}", headers=s.bearer())
            assert answer.status_code == 200
    assert [line["log_level"] for line in logged if line["event"] == "folder_not_synced"] == ["warning"]


def test_doctor_says_that_folders_can_not_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_folders(monkeypatch, errno.EINVAL)
    found = list(folders.folders(settings_in(tmp_path)))
    assert any(one.status == "warning" and "can't sync folders" in one.said for one in found)


def test_a_failing_disk_is_no_such_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_folders(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP], ids=errno.errorcode.get)
@pytest.mark.usefixtures("on_nfs")
async def test_a_share_without_locks_is_not_another_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refused(_descriptor: int, _kind: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    words = f"can't be locked: {os.strerror(number)}; it is on nfs4 mounted at /: move it to a local disk"
    with pytest.raises(LocksUnavailable, match=words):
        async with data_folder_lock(tmp_path, wait_seconds=30):
            pass
    with pytest.raises(LocksUnavailable, match=words):
        holder(tmp_path)
    with pytest.raises(CommandFailed, match=words):  # of a command that looks for the service
        running(Settings(database={"path": tmp_path / "imgsvc.db"}))  # type: ignore[arg-type]


@pytest.mark.usefixtures("on_nfs")
async def test_a_database_that_can_not_have_its_log_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite then keeps its mode and says so: a database in memory is one of that kind."""
    connect = aiosqlite.connect

    def in_memory(_path: Path, **options: Any) -> Any:
        return connect(":memory:", **options)

    monkeypatch.setattr(aiosqlite, "connect", in_memory)
    with pytest.raises(NoWriteAheadLog) as refused:
        await open_for_writing(tmp_path / "imgsvc.db")
    said = str(refused.value)
    assert "DATABASE_PATH" in said and "stays in the mode 'memory'; it is on nfs4 mounted at /" in said


@pytest.mark.usefixtures("on_nfs")
def test_a_database_on_a_share_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(_settings: Settings) -> None:
        raise sqlite3.OperationalError("locking protocol")

    # The last one reads what is installed, which that user may have no access to.
    for name in ("keep_only", "deny_tracing", "_raise_file_limit", "warn_if_untried"):
        monkeypatch.setattr(server, name, lambda *_: None)
    monkeypatch.setattr(logs, "configure", lambda _: None)
    monkeypatch.setattr(server, "_serve", fails)
    with capture_logs() as logged, pytest.raises(CantStart, match=r"locking protocol .*is on nfs4 mounted at /"):
        server.run(settings_in(tmp_path))
    assert [line["filesystem"] for line in logged if line["event"] == "database_on_share"] == ["nfs4"]


async def test_a_share_without_modes_takes_backups(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_path: Path, _mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    async with start() as s:
        await s.completed(make.tiny())
        monkeypatch.setattr(Path, "chmod", refused)
        with capture_logs() as logged:
            report = await carried_out(s, "backup", destination=str(tmp_path / "backup"))
    assert report["state"] == "done", report
    assert [line["log_level"] for line in logged if line["event"] == "backup_mode_refused"] == ["warning"]


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A data folder of another user, where any user may look for it."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        folder = Path(name) / "data"
        folder.mkdir()
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


def as_random_user(folder: Path) -> None:
    """Open the data folder as such a user; raises what the start would raise."""

    async def opened() -> None:
        async with open_data_folder(settings_in(folder), lock_wait_seconds=0):
            pass

    os.seteuid(RANDOM_USER)
    try:
        asyncio.run(opened())
    finally:
        os.seteuid(0)


def test_any_user_of_group_0_can_use_a_folder_of_that_group(foreign: Path) -> None:
    os.chown(foreign, 10_001, 0)
    foreign.chmod(0o770)  # as the container image has it
    as_random_user(foreign)
    assert (foreign / "imgsvc.db").stat().st_uid == RANDOM_USER


def test_a_folder_that_is_closed_is_described(foreign: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(foreign, 10_001, 10_001)
    foreign.chmod(0o700)
    # The last one reads what is installed, which that user may have no access to.
    for name in ("keep_only", "deny_tracing", "_raise_file_limit", "warn_if_untried"):
        monkeypatch.setattr(server, name, lambda *_: None)
    monkeypatch.setattr(logs, "configure", lambda _: None)
    os.seteuid(RANDOM_USER)
    try:
        with pytest.raises(CantStart) as refused:
            server.run(settings_in(foreign))
    finally:
        os.seteuid(0)
    said = str(refused.value)
    assert said.startswith(str(foreign)) and f"Permission denied (this is user {RANDOM_USER} with the groups 0" in said
    assert said.endswith(f"{foreign} belongs to user 10001 and group 10001, mode 700)")


def test_doctor_notices_a_folder_that_is_a_file(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    settings.storage.path.write_bytes(b"")
    (found,) = [one for one in folders.folders(settings) if one.status == "wrong"]
    assert found.said == f"storage folder {settings.storage.path}: {settings.storage.path} is a file"
    assert "STORAGE_PATH" in found.advice
    below = settings_in(tmp_path, storage={"path": settings.storage.path / "deeper"})
    assert any(f"{settings.storage.path} is a file" in one.said for one in folders.folders(below))
    assert list(folders.space(below))
