"""The health check of a storage that does not answer keeps nothing from ending."""

import signal
import time
from pathlib import Path

import anyio
import pytest

from imgsvc.storage.base import StorageError
from imgsvc.storage.local import LocalStorage
from imgsvc.storage.memory import MemoryStorage
from imgsvc.telemetry import storage_probe
from imgsvc.telemetry.storage_probe import StorageProbe
from tests.support.server_process import InlineServer, until
from tests.support.speed import seconds, within


class Silent(MemoryStorage):
    """A storage of one's own that takes everything and never confirms a removal."""

    async def remove(self, bucket: str, key: str) -> bool:
        await anyio.sleep_forever()
        return False


async def test_removal_that_hangs_is_a_failed_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_probe, "REMOVAL_SECONDS", 0.05)
    probe = StorageProbe(Silent(), tmp_path / "health", "id")
    with anyio.fail_after(10), pytest.raises(StorageError, match="too long"):
        await probe.check()


async def test_check_that_is_cancelled_amid_its_removal_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_probe, "REMOVAL_SECONDS", 0.5)
    probe = StorageProbe(Silent(), tmp_path / "health", "id")
    with within(10):
        with anyio.move_on_after(0.05) as scope:
            await probe.check()
    assert scope.cancelled_caught


async def test_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    probe = StorageProbe(LocalStorage(tmp_path / "storage", "id"), tmp_path / "health", "id")
    with pytest.raises(StorageError):
        await probe.check()
    assert not (tmp_path / "storage").exists()


class Hung(InlineServer):
    module = "tests.support.hung_storage"


@pytest.mark.process
def test_sigterm_ends_a_service_whose_disk_does_not_answer(tmp_path: Path) -> None:
    with Hung(tmp_path) as server:
        (tmp_path / "hang").touch()
        until((tmp_path / "hung").exists)
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.ended() == 0
        assert time.monotonic() - began < seconds(11)
