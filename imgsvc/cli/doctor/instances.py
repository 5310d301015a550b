"""Do database, data folder and storage folder belong together?"""

import sqlite3
from collections.abc import Iterator

from ...jobs.instance import InstanceMismatch, identify, places_of
from ...settings import Settings
from .finding import Finding, well, wrong


def instance(settings: Settings) -> Iterator[Finding]:
    try:
        found = identify(places_of(settings))
        found.check()
    except InstanceMismatch as error:
        yield wrong(str(error), "the service does not start like this")
        return
    except sqlite3.Error:  # what is wrong with the database is said by its own check
        return
    if found.database is None:
        yield well("no id yet: database and folders get it at the first start")
    elif settings.storage.backend == "local" and found.storage is None and found.has_jobs:
        yield wrong(
            f"the storage folder {settings.storage.path} does not hold this service's id",
            "mount its disk; for a new folder stop the service and run: imgsvc storage adopt",
        )
    else:
        yield well(f"database and folders belong together: {found.database}")
