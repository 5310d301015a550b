"""A FUSE file system over a folder, without what many network shares lack. The system's Python runs it: it has fusepy.

`python3 share.py FOLDER MOUNTPOINT [direct_io]`, until it is unmounted. Folders can't be synced and modes not changed;
with `direct_io` files can't be mapped into shared memory either, which SQLite's write-ahead log needs.
"""

import errno
import os
import sys
from typing import Any

import fusepy  # type: ignore[import-not-found]

STAT = ("st_atime", "st_ctime", "st_gid", "st_mode", "st_mtime", "st_nlink", "st_size", "st_uid", "st_ino", "st_blocks")
SPACE = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_flag", "f_frsize")


class Share(fusepy.Operations):  # type: ignore[misc]
    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")

    def __call__(self, op: str, path: str, *arguments: Any) -> Any:
        return super().__call__(op, self._root + path, *arguments)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        raise fusepy.FuseOSError(errno.EINVAL)

    def chmod(self, path: str, mode: int) -> int:
        raise fusepy.FuseOSError(errno.EPERM)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = os.lstat(path)
        return {name: getattr(found, name) for name in STAT}

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(path)]  # noqa: PTH208

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(path)
        return {name: getattr(found, name) for name in SPACE}

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(path if fh is None else fh, length)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, self._root + new)  # noqa: PTH104

    def link(self, target: str, source: str) -> None:
        os.link(self._root + source, target)

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(path, mode)  # noqa: PTH102

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags)

    def rmdir(self, path: str) -> None:
        os.rmdir(path)  # noqa: PTH106

    def unlink(self, path: str) -> None:
        os.unlink(path)  # noqa: PTH108

    def utimens(self, path: str, times: tuple[float, float] | None = None) -> None:
        os.utime(path, times)


if __name__ == "__main__":
    folder, mountpoint, *options = sys.argv[1:]
    fusepy.FUSE(Share(folder), mountpoint, foreground=True, fsname="share", **dict.fromkeys(options, True))
