"""Erasing a person, in the table: the operation's row, who is being erased, and the pages that its steps commit.

Methods that change something raise DatabaseUnavailable, and reads raise sqlite3.Error, if the database refuses.
"""

import secrets
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import aiosqlite

from . import erased_rows
from .database import Readers
from .erasure import Erasure, PersonBeingErased, hash_of
from .model import Job, as_text, now
from .sql import QUERIES
from .writer import Writer

SALT_BYTES = 16
LISTED = 200  # erasures


class ErasureTable:
    """Knows in memory who is being erased: one process owns the table. `last`: the latest erasure that has begun."""

    def __init__(self, readers: Readers, writer: Writer) -> None:
        self.last = 0
        self._readers = readers
        self._write = writer.write
        self._running: set[tuple[str | None, str | None]] = set()

    async def load(self) -> None:
        """Read who is being erased. Call before anything is accepted."""
        self._running = {(one.org_id, one.user_id) for one in await self.running()}
        self.last = int((await self._readers.fetch("last_erasure", {}))[0][0])

    @property
    def count(self) -> int:
        """How many people are being erased."""
        return len(self._running)

    def require_none(self, org_id: str, user_id: str) -> None:
        """Raises PersonBeingErased. The transactions that accept or issue something look again."""
        if (org_id, user_id) in self._running:
            raise PersonBeingErased

    async def begin(self, org_id: str, user_id: str) -> Erasure:
        """Commit that this person is erased from now on; the erasure that runs already, if there is one."""
        salt = secrets.token_bytes(SALT_BYTES)
        return await self.insert(str(uuid.uuid4()), salt, org_id, user_id, repeated=False)

    async def insert(self, erasure_id: str, salt: bytes, org_id: str, user_id: str, *, repeated: bool) -> Erasure:
        values = {
            "erasure_id": erasure_id,
            "org_id": org_id,
            "user_id": user_id,
            "salt": salt,
            "person": hash_of(salt, org_id, user_id),
            "mark": f"erased-{secrets.token_hex(8)}",
            "repeated": repeated,
            "now": as_text(now()),
        }

        async def insert(db: aiosqlite.Connection) -> Erasure:
            row = await (await db.execute(QUERIES["erasure_running"], values)).fetchone()
            if row is None:
                row = await (await db.execute(QUERIES["insert_erasure"], values)).fetchone()
                assert row is not None
                await erased_rows.erasure_event(db, "person_erasure_begun", Erasure.of(row).erasure_id)
            return Erasure.of(row)

        erasure = await self._write(insert, frees=True)
        self._running.add((org_id, user_id))
        self.last = max(self.last, erasure.number)
        return erasure

    async def insert_of_nobody(self, erasure_id: str, salt: bytes, person: bytes) -> None:
        """Record an erasure of before a restore of whose person the database knows nothing."""
        values = {"erasure_id": erasure_id, "salt": salt, "person": person, "mark": "erased", "now": as_text(now())}

        async def insert(db: aiosqlite.Connection) -> None:
            await db.execute(QUERIES["insert_erasure_of_nobody"], values)

        await self._write(insert)

    async def running(self) -> list[Erasure]:
        return [Erasure.of(row) for row in await self._readers.fetch("erasures_running", {})]

    async def latest(self) -> list[Erasure]:
        return [Erasure.of(row) for row in await self._readers.fetch("erasures", {"limit": LISTED})]

    async def all(self) -> list[Erasure]:
        """In their order."""
        return [Erasure.of(row) for row in await self._readers.fetch("all_erasures", {})]

    async def erasure(self, erasure_id: str) -> Erasure | None:
        rows = await self._readers.fetch("erasure", {"erasure_id": erasure_id})
        return Erasure.of(rows[0]) if rows else None

    async def delete_page(self, erasure: Erasure, limit: int) -> list[Job]:
        """Delete a page of the person's images in one transaction; returns them: their rows list the files."""
        return await self._write(lambda db: erased_rows.delete_page(db, erasure.number, limit), frees=True)

    async def clear_tables(self, erasure: Erasure) -> None:
        """Keys, tickets, rate limit windows and usage: one transaction each."""
        for query, what in erased_rows.TABLES:
            await self._write(
                lambda db, query=query, what=what: erased_rows.clear(db, erasure.number, query, what),  # type: ignore[misc]
                frees=True,
            )
        await self._write(lambda db: erased_rows.advance(db, erasure.number, "events"))

    async def clear_events(self, erasure: Erasure, rows: int) -> bool:
        """Replace the names in a page of the audit trail; False once that was the last page."""
        return await self._write(lambda db: erased_rows.clear_events(db, erasure.number, rows))

    async def with_files(self, erasure: Erasure, after: str, limit: int) -> list[Job]:
        """A page of the deleted images whose files are not known to be gone, by their job IDs."""
        values = {"number": erasure.number, "after": after, "limit": limit}
        return [Job.of(row) for row in await self._readers.fetch("erased_jobs_with_files", values)]

    async def add(self, erasure: Erasure, counts: Counter[str]) -> None:
        await self._write(lambda db: erased_rows.add(db, erasure.number, counts))

    async def end(self, erasure: Erasure) -> bool:
        """End it, and forget who it was. False: files are left, or images have come back; it goes on."""
        person, ended = (erasure.org_id, erasure.user_id), False
        self._running.discard(person)  # before anybody can read that it has ended; a commit before that is refused
        try:
            ended = await self._write(lambda db: erased_rows.end(db, erasure.number), frees=True)
        finally:
            if not ended:
                self._running.add(person)
        return ended

    async def people(self) -> AsyncIterator[tuple[str, str]]:
        """All people named in the tables, each at least once. Reads the whole audit trail, after a restore."""
        last = {"org_id": "", "user_id": ""}
        while rows := await self._readers.fetch("people_after", last):
            last = {name: rows[0][name] for name in last}
            yield last["org_id"], last["user_id"]
        for row in await self._readers.fetch("people_elsewhere", {}):
            yield row[0], row[1]
