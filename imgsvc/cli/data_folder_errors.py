"""What can go wrong with a data folder that a command opens itself, in one line."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from ..jobs.instance import InstanceMismatch
from ..jobs.lock import DataFolderInUse
from ..jobs.table.database import NoWriteAheadLog, SchemaTooNew
from ..jobs.table.writer import DatabaseUnavailable
from ..settings import Settings, SettingsError
from .errors import CommandFailed, failing_for

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
