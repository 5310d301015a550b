"""API keys and upload tickets in the table. Every look-up is a statement: a revocation holds from its COMMIT on."""

import json
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Self

import aiosqlite

from ...access.issued_secrets import KEY_PREFIX, TICKET_PREFIX, digest_of, new_secret
from ...access.token_limits import TokenLimits
from ...access.tokens import Identity
from ...lazy_dataclass import dataclass
from . import erasure
from .database import Readers
from .events import event
from .model import as_text, now
from .sql import QUERIES
from .writer import Writer

USED_TO = timedelta(hours=1)  # how exactly the last use of a key is known
TICKETS_KEPT = timedelta(days=1)  # after their end, for uploads that are repeated


class TicketSpent(Exception):
    """The ticket has no upload left."""


class TicketExpired(Exception):
    """The ticket's time is over."""


class KeyRevoked(Exception):
    """The API key of the upload, or of its ticket, was revoked in the meantime."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. Times are RFC 3339."""

    key_id: str
    name: str
    org_id: str
    user_id: str
    permissions: tuple[str, ...]
    narrower: TokenLimits
    created_at: str
    last_used_at: str | None
    revoked_at: str | None

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        return cls(
            key_id=row["key_id"],
            name=row["name"],
            org_id=row["org_id"],
            user_id=row["user_id"],
            permissions=tuple(json.loads(row["permissions"])),
            narrower=TokenLimits.model_validate_json(row["narrower"]),
            created_at=row["created_at"],
            last_used_at=row["last_used_at"],
            revoked_at=row["revoked_at"],
        )

    @property
    def identity(self) -> Identity:
        return Identity(self.user_id, self.org_id, self.permissions, self.narrower, self.key_id)


@dataclass(frozen=True, slots=True)
class NewTicket:
    """What an issuer asks for, narrowed by what holds for the issuer at that moment."""

    issuer: Identity
    bucket: str
    narrower: TokenLimits
    metadata: dict[str, Any]
    expires_after: int | None
    uploads: int
    seconds: int


@dataclass(frozen=True, slots=True)
class UploadTicket:
    """A ticket without its secret."""

    ticket_id: str
    org_id: str
    user_id: str
    key_id: str | None
    bucket: str
    narrower: TokenLimits
    metadata: dict[str, Any]
    expires_after: int | None
    uploads_left: int
    expires_at: str

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        return cls(
            ticket_id=row["ticket_id"],
            org_id=row["org_id"],
            user_id=row["user_id"],
            key_id=row["key_id"],
            bucket=row["bucket"],
            narrower=TokenLimits.model_validate_json(row["narrower"]),
            metadata=json.loads(row["metadata"]),
            expires_after=row["expires_after"],
            uploads_left=row["uploads_left"],
            expires_at=row["expires_at"],
        )

    @property
    def identity(self) -> Identity:
        """Its issuer, with no permission: what a ticket may do does not depend on any."""
        return Identity(self.user_id, self.org_id, (), self.narrower, self.key_id)

    def check(self) -> None:
        """Raises TicketExpired or TicketSpent."""
        if self.expires_at <= as_text(now()):
            raise TicketExpired
        if not self.uploads_left:
            raise TicketSpent


class Credentials:
    """Writes raise DatabaseUnavailable, reads sqlite3.Error.

    A ticket is looked up by a digest that covers the service's ID. A restore replaces that ID and so voids earlier
    tickets, since it is unknown which of them were spent after the backup.
    """

    def __init__(
        self, readers: Readers, writer: Writer, instance: str, record: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """`record` keeps the digest of a key outside the database, before it is revoked."""
        self._record = record
        self._readers = readers
        self._instance = instance
        self._write = writer.write

    async def key(self, secret: str) -> ApiKey | None:
        """The key with this secret, unless it was revoked; notes its use, at most once an hour."""
        rows = await self._readers.fetch("key_of_digest", {"digest": digest_of(secret)})
        if not rows:
            return None
        key = ApiKey.of(rows[0])
        if key.last_used_at is None or datetime.fromisoformat(key.last_used_at) < now() - USED_TO:
            values = {"key_id": key.key_id, "now": as_text(now())}
            await self._write(_execute("use_key", values))
        return key

    async def create_key(
        self, name: str, org_id: str, user_id: str, permissions: tuple[str, ...], narrower: TokenLimits
    ) -> tuple[str, ApiKey]:
        """Returns the secret, which is kept nowhere, and the key. Raises PersonBeingErased."""
        secret, key_id, moment = new_secret(KEY_PREFIX), str(uuid.uuid4()), as_text(now())
        values = {
            "key_id": key_id,
            "digest": digest_of(secret),
            "name": name,
            "org_id": org_id,
            "user_id": user_id,
            "permissions": json.dumps(permissions),
            "narrower": narrower.model_dump_json(exclude_none=True),
            "created_at": moment,
        }

        async def create(db: aiosqlite.Connection) -> None:
            await erasure.require_none(db, org_id, user_id)
            await db.execute(QUERIES["insert_key"], values)
            await event(db, "key_created", None, None, {"key_id": key_id, "permissions": permissions})

        await self._write(create)
        return secret, ApiKey(key_id, name, org_id, user_id, permissions, narrower, moment, None, None)

    async def keys(self) -> list[ApiKey]:
        """All keys, the newest first."""
        return [ApiKey.of(row) for row in await self._readers.fetch("keys", {})]

    async def count_keys(self) -> int:
        """How many are not revoked."""
        return int((await self._readers.fetch("count_keys", {}))[0][0])

    async def revoke_key(self, key_id: str) -> bool:
        """Revoke a key at once; False if there is none that was not revoked before.

        Recorded outside the database first: a key must not come back with a backup once its revocation was answered.
        """
        rows = await self._readers.fetch("key_of_id", {"key_id": key_id})
        if not rows:
            return False
        await self._record(rows[0]["digest"])

        async def revoke(db: aiosqlite.Connection) -> bool:
            cursor = await db.execute(QUERIES["revoke_key"], {"key_id": key_id, "now": as_text(now())})
            if cursor.rowcount:
                await event(db, "key_revoked", None, None, {"key_id": key_id})
            return cursor.rowcount > 0

        return await self._write(revoke)

    async def revoked_digests(self) -> frozenset[bytes]:
        """Of all keys that are revoked."""
        return frozenset(row["digest"] for row in await self._readers.fetch("revoked_digests", {}))

    async def revoke_digests(self, digests: Iterable[bytes]) -> int:
        """Revoke the keys with these digests; returns how many were not revoked."""
        values = [{"digest": digest, "now": as_text(now())} for digest in digests]

        async def revoke(db: aiosqlite.Connection) -> int:
            revoked = 0
            for one in values:
                for row in await db.execute_fetchall(QUERIES["revoke_digest"], one):
                    await event(db, "key_revoked", None, None, {"key_id": row["key_id"], "after": "restore"})
                    revoked += 1
            return revoked

        return await self._write(revoke, frees=True)

    async def open_tickets(self, limit: int) -> list[UploadTicket]:
        """Those that can still be used, the first to end first."""
        values = {"now": as_text(now()), "limit": limit}
        return [UploadTicket.of(row) for row in await self._readers.fetch("open_tickets", values)]

    async def issue_ticket(self, wanted: NewTicket) -> tuple[str, UploadTicket]:
        """Returns the secret, which is kept nowhere, and the ticket. Raises KeyRevoked or PersonBeingErased."""
        secret, moment, who = new_secret(TICKET_PREFIX), now(), wanted.issuer
        ticket = UploadTicket(
            ticket_id=str(uuid.uuid4()),
            org_id=who.org_id,
            user_id=who.user_id,
            key_id=who.key_id,
            bucket=wanted.bucket,
            narrower=wanted.narrower,
            metadata=wanted.metadata,
            expires_after=wanted.expires_after,
            uploads_left=wanted.uploads,
            expires_at=as_text(moment + timedelta(seconds=wanted.seconds)),
        )
        values = {
            "ticket_id": ticket.ticket_id,
            "digest": self._digest(secret),
            "org_id": ticket.org_id,
            "user_id": ticket.user_id,
            "key_id": ticket.key_id,
            "bucket": ticket.bucket,
            "narrower": ticket.narrower.model_dump_json(exclude_none=True),
            "metadata": json.dumps(ticket.metadata),
            "expires_after": ticket.expires_after,
            "uploads_left": ticket.uploads_left,
            "created_at": as_text(moment),
            "expires_at": ticket.expires_at,
        }

        async def issue(db: aiosqlite.Connection) -> None:
            await erasure.require_none(db, ticket.org_id, ticket.user_id)
            await require_key(db, ticket.key_id)
            await db.execute(QUERIES["insert_ticket"], values)
            facts = {"ticket_id": ticket.ticket_id, "uploads": wanted.uploads}
            await event(db, "ticket_issued", None, None, facts)

        await self._write(issue)
        return secret, ticket

    async def ticket(self, secret: str) -> UploadTicket | None:
        """The ticket with this secret, spent or over ones too, unless its key was revoked."""
        rows = await self._readers.fetch("ticket_of_digest", {"digest": self._digest(secret)})
        return UploadTicket.of(rows[0]) if rows else None

    def _digest(self, ticket: str) -> bytes:
        return digest_of(f"{self._instance} {ticket}")

    async def drop_tickets(self) -> None:
        """Drop the tickets that ended longer than TICKETS_KEPT ago."""
        await self._write(_execute("drop_tickets", {"before": as_text(now() - TICKETS_KEPT)}), frees=True)


def _execute(query: str, values: dict[str, Any]) -> Any:
    async def change(db: aiosqlite.Connection) -> None:
        await db.execute(QUERIES[query], values)

    return change


async def require_key(db: aiosqlite.Connection, key_id: str | None) -> None:
    """Part of a transaction that a key has asked for. Raises KeyRevoked."""
    if key_id is None:
        return
    if await (await db.execute(QUERIES["key_holds"], {"key_id": key_id})).fetchone() is None:
        raise KeyRevoked


async def spend(db: aiosqlite.Connection, ticket_id: str | None) -> None:
    """Part of the transaction that accepts an upload. Raises TicketSpent."""
    if ticket_id is None:
        return
    if not (await db.execute(QUERIES["spend_ticket"], {"ticket_id": ticket_id})).rowcount:
        raise TicketSpent
