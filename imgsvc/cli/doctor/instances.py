"""Checks that database, data folder and storage folder have the same ID."""

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
    except sqlite3.Error:  # the check of the database reports this
        return
    if found.database is None:
        yield well("no ID yet: database and folders get it at the first start")
    elif settings.storage.backend == "local" and found.storage is None and found.has_jobs:
        yield wrong(
            f"the storage folder {settings.storage.path} does not contain this service's ID",
            "mount its disk; for a new folder stop the service and run: imgsvc storage adopt",
        )
    else:
        yield well(f"database and folders have the same ID: {found.database}")
