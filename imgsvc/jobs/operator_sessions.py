"""The operator's sessions in browsers. They survive a restart, and end with another operator token or a restore.

One process owns the table, so the copy in memory is exact, and a request needs no query. Only the SHA-256 of a cookie
is kept: who reads the database or a backup can't sign in with it.
"""

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Self

import structlog

from ..settings import Settings
from .data_folder import DataFolder
from .table.model import now
from .table.session_rows import OperatorSession, SessionRows
from .table.writer import DatabaseUnavailable

log = structlog.get_logger()

MAX_SESSIONS = 1000  # beyond that the session that ends first is ended
COOKIE_BYTES = 32


class OperatorSessions:
    def __init__(
        self, rows: SessionRows, credentials: bytes, seconds: float, clock: Callable[[], datetime] = now
    ) -> None:
        self.seconds = seconds
        self._rows = rows
        self._credentials = credentials
        self._clock = clock
        self._open: dict[bytes, OperatorSession] = {}

    @classmethod
    async def of(cls, settings: Settings, data: DataFolder, token: str) -> Self:
        """Those of this operator token and this instance; a restore gives the data folder a new one."""
        credentials = _digest(f"{data.instance} {token}")
        sessions = cls(data.session_rows, credentials, settings.operator.session_hours * 3600)
        await sessions.load()
        return sessions

    async def load(self) -> None:
        """Read the rows. Raises sqlite3.Error."""
        self._open = await self._rows.of(self._credentials)

    async def remove_others(self) -> None:
        """Remove the rows of other credentials."""
        try:
            await self._rows.drop_others(self._credentials)
        except DatabaseUnavailable as error:  # they open nothing; a start on a full disk goes on
            log.warning("operator_sessions_not_removed", reason=str(error))

    async def open(self, subject: str | None = None) -> str:
        """Open a session; returns its cookie: 256 random bits. On a full disk it lasts until the next restart."""
        cookie = secrets.token_urlsafe(COOKIE_BYTES)
        opened_at = self._clock()
        session = OperatorSession(subject, opened_at, opened_at + timedelta(seconds=self.seconds))
        self._open[_digest(cookie)] = session
        try:
            while len(self._open) > MAX_SESSIONS:
                await self._end(min(self._open, key=lambda digest: self._open[digest].expires_at))
            await self._rows.insert(_digest(cookie), self._credentials, session)
        except DatabaseUnavailable as error:
            log.warning("operator_session_not_stored", reason=str(error))
        return cookie

    def get(self, cookie: str) -> OperatorSession | None:
        """The open session of this cookie. Looked up by digest, so the time taken reveals nothing about valid ones."""
        session = self._open.get(_digest(cookie))
        return session if session and self._clock() < session.expires_at else None

    def open_ones(self) -> list[OperatorSession]:
        return [session for session in self._open.values() if self._clock() < session.expires_at]

    async def close(self, cookie: str) -> None:
        """End this session, if it is open. Raises DatabaseUnavailable: the next restart would open it again."""
        await self._end(_digest(cookie))

    async def close_all(self) -> int:
        """End all sessions; returns their number. Raises DatabaseUnavailable, with all ended until the next restart."""
        self._open.clear()
        return await self._rows.drop_all(self._clock())

    async def _end(self, digest: bytes) -> None:
        if self._open.pop(digest, None) is not None:
            await self._rows.drop(digest)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
