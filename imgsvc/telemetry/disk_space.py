"""Health of the disk: the free space in the data folder, which uploads are checked against."""

import shutil
from pathlib import Path

import anyio.to_thread

from ..settings.fields import MEGABYTE
from .health import Check

DISK = "disk"  # the name of the check


class DiskSpace:
    """Sizes in bytes, as last measured. Below the reserve the disk counts as full."""

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self.reserve_bytes = reserve_bytes
        self.free_bytes = 0
        self.disk_full = False
        self._folder = folder

    async def check(self) -> Check:
        free = self.free_bytes = (await anyio.to_thread.run_sync(shutil.disk_usage, self._folder)).free
        self.disk_full = free < self.reserve_bytes
        detail = f"{free // MEGABYTE} MB free, {self.reserve_bytes // MEGABYTE} MB kept in reserve"
        return Check(status="unhealthy" if self.disk_full else "healthy", detail=detail)
