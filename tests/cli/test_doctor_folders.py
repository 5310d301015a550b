"""`imgsvc doctor` on the folders: whose they are, what file system they are on, and their room."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from imgsvc.cli.doctor import (
    folders,
)
from imgsvc.storage import mounts as mounts_module
from imgsvc.storage.mounts import mount_in
from imgsvc.testing import settings_in
from tests.support.doctor import worst

MOUNTS = """22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:30 / /mnt/my\\040nas rw - nfs4 nas:/x rw
31 22 0:31 / /mnt rw - tmpfs tmpfs rw
32 22 0:32 / /data rw - ext4 /dev/vdb rw
33 22 0:33 / /data rw - cifs //nas/x rw
"""


class TestFolders:
    @pytest.mark.parametrize(
        ("folder", "kind"),
        [
            ("/", "ext4"),
            ("/home/x", "ext4"),
            ("/mnt/my nas/data", "nfs4"),
            ("/mnt/my", "tmpfs"),
            ("/database", "ext4"),
            ("/data/x", "cifs"),
        ],
    )
    def test_file_system_is_that_of_the_longest_mount(self, folder: str, kind: str) -> None:
        assert mount_in(Path(folder), MOUNTS).kind == kind

    @pytest.mark.parametrize(
        ("kind", "said"),
        [("ext4", "well"), ("nfs4", "wrong"), ("cifs", "wrong"), ("tmpfs", "warning"), ("overlay", "warning")],
    )
    def test_kind_of_file_system(self, data: Path, monkeypatch: pytest.MonkeyPatch, kind: str, said: str) -> None:
        mounts = data.parent / "mounts"
        mounts.write_text(f"22 1 254:0 / / rw - {kind} x rw\n")
        monkeypatch.setattr(mounts_module, "MOUNTS", mounts)
        assert worst(folders.folders, settings_in(data)).startswith(said)

    def test_nothing_is_left_behind(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mounts_module, "MOUNTS", data.parent / "mounts")  # the tests' folder may be in memory
        before = sorted(path.name for path in data.rglob("*"))
        assert worst(folders.folders, settings_in(data)) in ("well",)
        assert sorted(path.name for path in data.rglob("*")) == before

    def test_room(self, data: Path) -> None:
        free = shutil.disk_usage(data).free >> 20
        for reserve, said in ((1, "well"), (free * 2 // 3, "warning"), (free * 2, "wrong")):
            settings = settings_in(data, storage={"reserve_mb": reserve})
            assert worst(folders.space, settings).startswith(said)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that belongs to another user")
    def test_folder_of_another_user(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            settings = settings_in(Path(name) / "data")
            settings.storage.path.mkdir(mode=0o700, parents=True)
            os.chown(settings.storage.path, 10_001, 10_001)
            assert worst(folders.folders, settings_in(settings.data)).startswith("warning: data folder: this is root")
            Path(name).chmod(0o711)
            settings.data.chmod(0o700)
            os.seteuid(10_001)
            try:
                said = worst(folders.folders, settings_in(settings.data))
            finally:
                os.seteuid(0)
        assert (
            said.startswith("wrong: data folder ") and "Permission denied (it belongs to user 0, this is 10001)" in said
        )
