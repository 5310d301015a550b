"""Removes folders that a hostile process may have filled: no recursion, no following of links, bounded memory.

A worker can nest thousands of folders: the path gets longer than the system allows, and the nesting deeper than Python
can recurse. So each folder's subfolders are moved up to the top before the folder is removed, which keeps one level.
"""

import os
import time
from contextlib import suppress
from itertools import count, islice
from pathlib import Path

import structlog

log = structlog.get_logger()

PAGE = 500  # entries that are held in memory
LIMIT_SECONDS = 60.0
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(folder: Path, seconds: float = LIMIT_SECONDS) -> bool:
    """Remove `folder`, whatever type of file it is; True if nothing is left. Never raises."""
    try:
        folder.unlink()  # of what a run leaves, most are files
        return True
    except FileNotFoundError:
        return True
    except OSError:
        with suppress(OSError):
            empty_open_folder(os.open(folder, FOLDER), seconds)
            folder.rmdir()
            return True
    return not os.path.lexists(folder)


def empty_folder(folder: Path) -> None:
    """Create `folder` if necessary (mode 0700) and empty it: scratch files of an ended process. Raises OSError.

    What can't be removed stays and is logged. It does no harm, since every run has its own folder.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not empty_tree(folder):
        log.warning("folder_not_emptied", folder=folder.name)


def empty_tree(folder: Path, seconds: float = LIMIT_SECONDS) -> bool:
    """Empty `folder`, which may be a link; True if it is empty. Raises OSError."""
    return empty_open_folder(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), seconds)


def empty_open_folder(top: int, seconds: float) -> bool:
    """Empty the folder with the descriptor `top`, and close it. True if the folder is empty."""
    deadline, names = time.monotonic() + seconds, count()
    try:
        while page := _page(top):
            failed = 0
            for name, is_folder in page:
                try:
                    if is_folder:
                        _flatten(top, name, names, deadline)
                    else:
                        os.unlink(name, dir_fd=top)
                except FileNotFoundError:
                    continue
                except OSError:
                    failed += 1
                if time.monotonic() > deadline:
                    return False
            if failed == len(page):
                return False
    except OSError:
        return False
    finally:
        os.close(top)
    return True


def _page(folder: int) -> list[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in islice(entries, PAGE)]


def _flatten(top: int, name: str, names: "count[int]", deadline: float) -> None:
    """Unlink the files of a folder in `top`, move its subfolders into `top`, and remove it. Raises OSError."""
    _permit(top, name)
    folder = os.open(name, FOLDER, dir_fd=top)
    try:
        while page := _page(folder):
            for inner, is_folder in page:
                if is_folder:
                    _permit(folder, inner)  # moving a folder changes its entry `..`
                    os.rename(inner, _free(top, names), src_dir_fd=folder, dst_dir_fd=top)
                else:
                    os.unlink(inner, dir_fd=folder)
            if time.monotonic() > deadline:
                raise TimeoutError
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _free(top: int, names: "count[int]") -> str:
    """A name that is unused in `top`: a rename would replace an empty folder."""
    while True:
        name = f".removed-{next(names)}"
        try:
            os.stat(name, dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            return name


def _permit(parent: int, name: str) -> None:
    """Restore the permissions that removing a folder needs, without following a link."""
    if not hasattr(os, "O_PATH"):
        return
    folder = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(folder).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{folder}", 0o700)  # noqa: PTH101
    finally:
        os.close(folder)
