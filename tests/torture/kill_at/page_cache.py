"""A page cache that is lost: after it, the folders hold what was synced and nothing else.

The harshest disk that POSIX allows: bytes are there once fsync or fdatasync of their file has returned, names once
fsync of their folder has. A file with a durable name and no synced bytes is empty; what was unlinked or renamed is
where it was, until its folder is synced. What kill_at.c keeps at each sync is put together here.

Files are distinguished by their inodes, which must not be used again within a case: a folder in memory counts them up.
"""

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from tests.torture.kill_at.site import Site

FOLDERS = ("data", "storage", "other", "backup")


@dataclass(frozen=True, slots=True)
class Sync:
    """A line of `syncs`, as kill_at.c writes it."""

    number: int
    call: int  # how many calls were counted before it came back, itself among them
    inode: int
    mode: int
    changed: int  # nanoseconds
    place: str
    kept: bool


@dataclass(frozen=True, slots=True)
class Content:
    copy: Path
    mode: int
    changed: int


class Disk:
    """What a site's disk holds, from the moment that this is made: all that is there then."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._files: dict[int, Content] = {}
        self._folders: dict[int, list[tuple[int, int, str]]] = {}
        before = site.folder.with_name(f"{site.folder.name}.before")
        shutil.copytree(site.folder, before, symlinks=True)
        site.kept.mkdir()
        before.rename(site.kept / "before")
        self._look(site.folder, site.kept / "before")

    def syncs(self) -> list[Sync]:
        log = self._site.kept / "syncs"
        found = []
        for line in log.read_text().splitlines() if log.exists() else []:
            number, call, inode, mode, changed, place, done = line.split(" ")
            found.append(Sync(int(number), int(call), int(inode), int(mode, 8), int(changed), place, done == "kept"))
        return found

    def put_back(self) -> None:
        """Replace the site's folders by what was synced. No process may work in them any more."""
        for sync in sorted(self.syncs(), key=lambda one: one.number):
            if not sync.kept:
                continue
            copy = self._site.kept / str(sync.number)
            if stat.S_ISDIR(sync.mode):
                entries = [line.split(" ", 2) for line in os.fsdecode(copy.read_bytes()).splitlines()]
                self._folders[sync.inode] = [(int(inode), int(mode, 8), name) for inode, mode, name in entries]
            else:
                self._files[sync.inode] = Content(copy, sync.mode, sync.changed)
        root = self._site.folder
        top = {name: (inode, mode) for inode, mode, name in self._folders[root.stat().st_ino] if name in FOLDERS}
        for name in FOLDERS:
            if (root / name).exists():
                (root / name).rename(self._site.kept / f"lost-{name}")
        for name, (inode, mode) in top.items():
            self._write(root / name, inode, mode)

    def _look(self, folder: Path, copy: Path) -> None:
        entries = []
        for path in folder.iterdir():
            if path == self._site.kept:
                continue
            found = path.lstat()
            entries.append((found.st_ino, found.st_mode, path.name))
            if path.is_dir():
                self._look(path, copy / path.name)
            else:
                self._files[found.st_ino] = Content(copy / path.name, found.st_mode, found.st_mtime_ns)
        self._folders[folder.stat().st_ino] = entries

    def _write(self, path: Path, inode: int, mode: int) -> None:
        if stat.S_ISDIR(mode):
            path.mkdir()
            for child, child_mode, name in self._folders.get(inode, ()):
                self._write(path / name, child, child_mode)
            path.chmod(stat.S_IMODE(mode))
        elif content := self._files.get(inode):
            shutil.copyfile(content.copy, path, follow_symlinks=False)
            path.chmod(stat.S_IMODE(content.mode))
            os.utime(path, ns=(content.changed, content.changed))
        else:
            path.touch(stat.S_IMODE(mode))
