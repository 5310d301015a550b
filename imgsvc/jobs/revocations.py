"""What must outlive a restore, kept beside the database: revoked keys, erased people, and each restore.

`revocations.jsonl` in the data folder is appended to, each line synced before the answer. It holds digests only: of
keys, which can't be guessed, and salted ones of people. A start compares it with the database, both ways, so that a
restored database revokes and erases again what was revoked and erased after its backup.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import structlog

from ..lazy_dataclass import dataclass
from ..storage.durable_files import sync_folder
from .table.erasure import Erasure
from .table.model import as_text, now
from .table.writer import DatabaseUnavailable

log = structlog.get_logger()

NAME = "revocations.jsonl"


@dataclass(frozen=True, slots=True)
class ErasedPerson:
    erasure_id: str
    salt: bytes
    person: bytes


@dataclass(frozen=True, slots=True)
class Restored:
    """A restore: the database's ID before it, its new one, the moments of the backup and of the restore (RFC 3339)."""

    before: str | None
    epoch: str
    taken_at: str
    at: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the file says. `epochs`: the IDs of databases whose revocations it holds from their begin on."""

    keys: frozenset[bytes]
    people: dict[str, ErasedPerson]
    epochs: frozenset[str]
    restores: tuple[Restored, ...]

    @property
    def unknown(self) -> tuple[Restored, ...]:
        """Restores of which the file does not know what was revoked and erased since the backup."""
        return tuple(one for one in self.restores if one.before not in self.epochs)


class Revocations:
    """The file. Methods that add to it raise DatabaseUnavailable if the disk refuses: nothing is confirmed then."""

    def __init__(self, data: Path) -> None:
        self._path = data / NAME
        self._lock = anyio.Lock()
        self._people: set[str] = set()  # erasures that are known to be in the file
        self.unknown: tuple[Restored, ...] = ()

    async def read(self) -> Recorded:
        """Raises OSError."""
        recorded = await anyio.to_thread.run_sync(read, self._path)
        self._people = set(recorded.people)
        self.unknown = recorded.unknown
        return recorded

    async def add_key(self, digest: bytes) -> None:
        await self._add(_line("revoked", key=digest.hex()))

    async def add_erasure(self, erasure: Erasure) -> None:
        """Once for each erasure."""
        line = _line("erased", id=erasure.erasure_id, salt=erasure.salt.hex(), person=erasure.person.hex())
        async with self._lock:
            if erasure.erasure_id not in self._people:
                await self._write(line)
                self._people.add(erasure.erasure_id)

    async def add_epoch(self, instance: str) -> None:
        """A database begins here, or an older version has kept it without this file."""
        await self._add(_line("began", epoch=instance))

    async def _add(self, line: dict[str, Any]) -> None:
        async with self._lock:
            await self._write(line)

    async def _write(self, line: dict[str, Any]) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(append, self._path, [line])
        except OSError as error:
            log.error("revocation_not_recorded", reason=error.strerror)
            raise DatabaseUnavailable(f"{NAME}: {error.strerror}") from error


def add_restore(data: Path, before: str | None, epoch: str, taken_at: str) -> Recorded:
    """Record a restore; returns what the file says then. Raises OSError."""
    append(data / NAME, [_line("restored", before=before, epoch=epoch, taken_at=taken_at)])
    return read(data / NAME)


def _line(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "at": as_text(now()), **more}


def append(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Append durably. What an interrupted write has left of a line is ended first. Raises OSError."""
    created = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b", buffering=0) as stream:
        size = os.fstat(descriptor).st_size
        torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        text = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        data = b"\n" + text if torn else text
        while data:
            data = data[stream.write(data) :]
        os.fsync(descriptor)
    if created:
        sync_folder(path.parent)


def read(path: Path) -> Recorded:
    """Lines that can't be understood are logged and left out. Raises OSError."""
    keys: set[bytes] = set()
    people: dict[str, ErasedPerson] = {}
    epochs: set[str] = set()
    restores: list[Restored] = []
    wrong = 0
    for text in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            line = json.loads(text) if text.strip() else {"kind": "empty"}
            match line["kind"]:
                case "revoked":
                    keys.add(bytes.fromhex(line["key"]))
                case "erased":
                    salt, person = bytes.fromhex(line["salt"]), bytes.fromhex(line["person"])
                    people[line["id"]] = ErasedPerson(line["id"], salt, person)
                case "began":
                    epochs.add(line["epoch"])
                case "restored":
                    epochs.add(line["epoch"])
                    restores.append(Restored(line["before"], line["epoch"], line["taken_at"], line["at"]))
        except (ValueError, KeyError, TypeError):
            wrong += 1
    if wrong:
        log.warning("revocations_unreadable", lines=wrong)
    return Recorded(frozenset(keys), people, frozenset(epochs), tuple(restores))
