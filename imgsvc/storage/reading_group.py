"""The group that may read variants (`[storage] group`): that of a proxy that sends their bytes itself.

Only variants and the folders on the way to them become accessible. Folders can be passed through but not listed. Other
files that are stored in them are for the service alone.
"""

import grp
import os
from pathlib import Path

from ..settings.fields import SettingsError
from .base import is_probe
from .keys import PROCESSED

FILE_MODE, CLOSED_FILE_MODE = 0o640, 0o600
FOLDER_MODE, CLOSED_FOLDER_MODE = 0o710, 0o700


class ReadingGroup:
    """The group `gid` below the storage folder `root`."""

    def __init__(self, gid: int, root: Path) -> None:
        self._gid = gid
        self._root = root

    @staticmethod
    def may_read(bucket: str, key: str) -> bool:
        return key.startswith(PROCESSED) and not is_probe(bucket)

    def admit_file(self, descriptor: int) -> None:
        """Let the group read an open file. Raises OSError."""
        os.fchown(descriptor, -1, self._gid)
        os.fchmod(descriptor, FILE_MODE)

    def close_file(self, descriptor: int) -> None:
        """Keep the group from reading an open file. Raises OSError."""
        os.fchmod(descriptor, CLOSED_FILE_MODE)

    def admit_folder(self, folder: Path) -> None:
        """Let the group pass through a folder below the root, and through the root itself. Raises OSError."""
        for one in (self._root, folder) if folder.parent == self._root else (folder,):
            os.chown(one, -1, self._gid)
            one.chmod(FOLDER_MODE)


def group_id(name: str) -> int:
    """The number of a group that this process may give files to. Raises SettingsError."""
    text = f"[storage] group (IMGSVC_STORAGE_GROUP) = {name!r}"
    try:
        gid = grp.getgrnam(name).gr_gid
    except KeyError:
        raise SettingsError(f"{text}: there is no such group") from None
    if os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups()):
        raise SettingsError(f"{text}: this service's user is not in it, and so can't give it files")
    return gid
