"""Backups of a service in process, and what it is once they are put back."""

from pathlib import Path
from typing import Any

import anyio

from fixtures import make
from imgsvc import Settings, testing
from imgsvc.maintenance.backup.restore import restore
from imgsvc.maintenance.progress import Progress
from imgsvc.storage.base import Storage
from imgsvc.storage.local import LocalStorage
from tests.conftest import Service
from tests.support.maintenance import carried_out, variants
from tests.support.other_storage import Other


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
    ids = [(await s.completed(make.tiny(first + number), bucket="a/b"))["image_id"] for number in range(many)]
    return {image_id: await variants(s, image_id) for image_id in ids}


class Waiting(LocalStorage):
    """Waits before the first file is copied out of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked, self.go = anyio.Event(), anyio.Event()

    async def fetch(self, bucket: str, key: str, target: Path, size: int) -> None:
        self.asked.set()
        await self.go.wait()
        await super().fetch(bucket, key, target, size)
