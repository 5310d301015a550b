"""Checks this machine and the settings for common faults. Each finding says in one line what to do.

Nothing is changed and no running service is needed; test files are removed again.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from ...lazy_dataclass import dataclass
from ...settings import Settings
from ..errors import CommandFailed
from . import (
    cluster,
    conflicts,
    database,
    dependencies,
    folders,
    instances,
    libraries,
    limits,
    optional_decoders,
    pillow,
    reading_group,
    secrets,
    service,
    versions,
    workers,
)
from .finding import Finding, wrong

LIMIT_SECONDS = 20.0  # for one check: accessing a dead mount hangs
Check = Callable[[Settings], Iterator[Finding]]

# A check is named by its function.
CHECKS: tuple[Check, ...] = (
    versions.versions,
    pillow.pillow,
    pillow.codecs,
    libraries.libraries,
    optional_decoders.optional_decoders,
    workers.cage,
    cluster.cluster,
    folders.folders,
    folders.space,
    reading_group.reading_group,
    instances.instance,
    limits.open_files,
    limits.processors,
    limits.memory,
    secrets.secrets,
    conflicts.settings,
    database.database,
    service.clock,
    service.service,
    service.public_url,
    dependencies.object_storage,
    dependencies.redis,
    dependencies.token_keys,
    dependencies.authorization,
)


@dataclass(frozen=True, slots=True)
class Examined:
    """A finding, and the check that found it."""

    check: str
    finding: Finding

    @property
    def as_json(self) -> dict[str, Any]:
        return {"check": self.check, **asdict(self.finding)}


def examine(settings: Settings, checks: tuple[Check, ...] = CHECKS, limit: float = LIMIT_SECONDS) -> Iterator[Examined]:
    """Yield each check's findings once it has ended. A check that fails or takes `limit` seconds is a finding too."""
    for check in checks:
        for finding in _within(limit, check, settings):
            yield Examined(check.__name__.replace("_", " "), finding)


def _within(limit: float, check: Check, settings: Settings) -> list[Finding]:
    done: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()
    threading.Thread(target=lambda: done.put(_found(check, settings)), daemon=True).start()
    try:
        return done.get(timeout=limit)
    except queue.Empty:
        return [wrong(f"no answer within {limit:g} seconds", "look for a disk, share or address that hangs")]


def _found(check: Check, settings: Settings) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(settings))
    except (CommandFailed, OSError) as error:
        found.append(wrong(str(error), "check this user's permissions"))
    except Exception as error:  # report a failing check, and continue with the others
        found.append(wrong(f"the check itself failed: {type(error).__name__}: {error}", "report this"))
    return found
