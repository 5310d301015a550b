"""Rows of the operator's sessions. Reads raise sqlite3.Error, changes DatabaseUnavailable."""

from datetime import datetime
from typing import Self

import aiosqlite

from ...lazy_dataclass import dataclass
from .database import Readers
from .model import as_text
from .sql import QUERIES
from .transactions import execute
from .writer import Writer


@dataclass(frozen=True, slots=True)
class OperatorSession:
    """`subject` is the person of single sign-on; None: signed in with the operator token."""

    subject: str | None
    opened_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        opened_at, expires_at = (datetime.fromisoformat(row[name]) for name in ("opened_at", "expires_at"))
        return cls(row["subject"], opened_at, expires_at)


class SessionRows:
    """`credentials` is a digest of what every session depends on; rows with another digest are of the past."""

    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers = readers
        self._write = writer.write

    async def of(self, credentials: bytes) -> dict[bytes, OperatorSession]:
        """{digest of the cookie: session}, those that end first first."""
        rows = await self._readers.fetch("operator_sessions", {"credentials": credentials})
        return {row["digest"]: OperatorSession.of(row) for row in rows}

    async def insert(self, digest: bytes, credentials: bytes, session: OperatorSession) -> None:
        await self._write(
            execute(
                "insert_operator_session",
                digest=digest,
                credentials=credentials,
                subject=session.subject,
                opened_at=as_text(session.opened_at),
                expires_at=as_text(session.expires_at),
            )
        )

    async def drop(self, digest: bytes) -> None:
        await self._write(execute("drop_operator_session", digest=digest), frees=True)

    async def drop_others(self, credentials: bytes) -> None:
        await self._write(execute("drop_operator_sessions_of_others", credentials=credentials), frees=True)

    async def drop_all(self, moment: datetime) -> int:
        """The number of those that were open at this moment."""

        async def change(db: aiosqlite.Connection) -> int:
            dropped = await db.execute_fetchall(QUERIES["drop_operator_sessions"])
            return sum(row["expires_at"] > as_text(moment) for row in dropped)

        return await self._write(change, frees=True)
