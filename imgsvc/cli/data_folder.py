"""The data folder of a command that works without the service, and what can go wrong with it, in one line."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..jobs.data_folder import DataFolder, open_data_folder
from ..jobs.instance import InstanceMismatch
from ..jobs.lock import DataFolderInUse
from ..jobs.table.database import NoWriteAheadLog, SchemaTooNew
from ..jobs.table.writer import DatabaseUnavailable
from ..settings import Settings, SettingsError
from .errors import CommandFailed, failing_for

T = TypeVar("T")
LOCK_WAIT_SECONDS = 3.0  # for another command that uses the same folder
EXPECTED = (
    CommandFailed,
    DataFolderInUse,
    InstanceMismatch,
    SchemaTooNew,
    DatabaseUnavailable,
    SettingsError,
    sqlite3.Error,
    OSError,
)


@contextmanager
def failing_for_data_folder(settings: Settings, *more: type[Exception]) -> Iterator[None]:
    """Raise CommandFailed for the errors of opening and using the data folder, and for `more`."""

    def in_words(error: BaseException) -> str:
        if isinstance(error, (sqlite3.Error, DatabaseUnavailable)) and not isinstance(error, NoWriteAheadLog):
            return f"[database] path (DATABASE_PATH) = {settings.database.path}: {error}"
        return str(error)

    with failing_for(*EXPECTED, *more, in_words=in_words):
        yield


def with_data_folder(settings: Settings, work: Callable[[DataFolder], Awaitable[T]], *more: type[Exception]) -> T:
    """What `work` returns. The folder is locked for that time: a starting service waits for it.

    Raises CommandFailed, also where there is no database, and for the errors `more` of `work`.
    """
    if not settings.database.path.is_file():
        raise CommandFailed(f"there is no database at {settings.database.path}")

    async def opened() -> T:
        async with open_data_folder(settings, lock_wait_seconds=LOCK_WAIT_SECONDS) as data:
            return await work(data)

    with failing_for_data_folder(settings, *more):
        return asyncio.run(opened())
