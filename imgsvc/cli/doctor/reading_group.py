"""Checks that a proxy which sends variants itself can reach them (`[storage] group`), and nothing else."""

import stat
from collections.abc import Iterator

from ...settings import Settings
from ...settings.fields import SettingsError
from ...storage.reading_group import group_id
from .finding import Finding, well, wrong


def reading_group(settings: Settings) -> Iterator[Finding]:
    name, root = settings.storage.group, settings.storage.path.absolute()
    if not name:
        return
    try:
        gid = group_id(name)
    except SettingsError as error:
        yield wrong(str(error), f"usermod -aG {name} USER, with this service's user, and restart the service")
        return
    for folder in root.parents:
        if not folder.is_dir():
            continue
        found = folder.stat()
        passed = stat.S_IXGRP if found.st_gid == gid else stat.S_IXOTH
        if not found.st_mode & passed:
            yield wrong(
                f"the group {name} can't get to {root}: {folder} is closed to it",
                "move the pictures to a folder that it can reach (STORAGE_PATH), outside of the data folder",
            )
            return
    yield well(f"the group {name} can read the pictures in {root}")
