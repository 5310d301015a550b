"""Checks that the database is intact, and of a version that this program supports."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ...jobs.lock import holder
from ...jobs.table.database import MIGRATIONS
from ...settings import Settings
from ...settings.fields import MEGABYTE
from .finding import Finding, warning, well, wrong

CHECK_SECONDS = 10.0
BUSY_SECONDS = 5.0
STEPS = 10_000  # of SQLite's virtual machine between two checks of the time


def database(settings: Settings) -> Iterator[Finding]:
    path = settings.database.path
    if not path.is_file():
        yield well(f"there is no database at {path} yet: it is created at the first start")
        return
    alone = holder(settings.data) is None
    found = list(_examined(path, alone))
    if alone and holder(settings.data) is not None:  # a service was started in the meantime, and wrote
        found = list(_examined(path, alone=False))
    yield from found


def _examined(path: Path, alone: bool) -> Iterator[Finding]:
    # Opened normally, even for reading, SQLite would leave a log and an index beside a properly closed database.
    closed = alone and not path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.absolute().as_uri()}?{'immutable=1' if closed else 'mode=ro'}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            result = _quick_check(db)
    except sqlite3.DatabaseError as error:
        yield wrong(f"{path} can't be read: {error}", "stop the service, and restore a backup")
        return
    size = f"{path.stat().st_size / MEGABYTE:,.1f} MB"
    if version > len(MIGRATIONS):
        advice = "run the newer program, or restore the backup from before the upgrade"
        yield wrong(f"its schema has version {version}, but this program supports up to {len(MIGRATIONS)}", advice)
    elif version < len(MIGRATIONS):
        advice = "back it up: an older program can't read it afterwards"
        yield warning(f"the next start will migrate its schema from version {version} to {len(MIGRATIONS)}", advice)
    if result is None:
        advice = "stop the service and run: sqlite3 FILE 'PRAGMA quick_check'"
        yield warning(f"{size}: not completely checked within {CHECK_SECONDS:g} seconds, intact so far", advice)
    elif result != "ok":
        yield wrong(f"it is damaged: {result}", "stop the service, keep a copy, and restore a backup")
    else:
        yield well(f"intact, {size}, schema version {version}")


def _quick_check(db: sqlite3.Connection) -> str | None:
    """`ok` or the first fault; None if the time was not sufficient."""
    deadline = time.monotonic() + CHECK_SECONDS
    db.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
    try:
        return " ".join(str(db.execute("PRAGMA quick_check(1)").fetchone()[0]).split())
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return None
        raise
    finally:
        db.set_progress_handler(None, 0)
