"""An erasure of a person, and the refusal of what its transactions must not let in."""

import hashlib
import json
from typing import Literal, Self

import aiosqlite

from ...lazy_dataclass import dataclass
from .sql import QUERIES

Step = Literal["images", "tables", "events", "files", "done"]


class PersonBeingErased(Exception):
    """Until the erasure has ended nothing is accepted from the person, and no key or ticket is issued."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """A row. `org_id` and `user_id` are None once it has ended; `person` is their salted hash. Times are RFC 3339."""

    number: int
    erasure_id: str
    org_id: str | None
    user_id: str | None
    salt: bytes
    person: bytes
    mark: str
    step: Step
    position: int
    counts: dict[str, int]
    repeated: bool
    started_at: str
    ended_at: str | None

    @classmethod
    def of(cls, row: aiosqlite.Row) -> Self:
        values = {name: row[name] for name in cls.__slots__}
        return cls(**values | {"counts": json.loads(row["counts"]), "repeated": bool(row["repeated"])})

    def is_of(self, org_id: str, user_id: str) -> bool:
        return hash_of(self.salt, org_id, user_id) == self.person


def hash_of(salt: bytes, org_id: str, user_id: str) -> bytes:
    """The salted hash of a person: confirms a known name, and can't be reversed."""
    return hashlib.sha256(salt + json.dumps([org_id, user_id]).encode("utf-8", "surrogatepass")).digest()


async def require_none(db: aiosqlite.Connection, org_id: str, user_id: str, seen: int | None = None) -> None:
    """Part of a transaction that accepts or issues something. Raises PersonBeingErased.

    `seen`: the latest erasure when the upload began. One that began later refuses it, though it may have ended.
    """
    if seen is None:
        found = await (await db.execute(QUERIES["erasure_running"], {"org_id": org_id, "user_id": user_id})).fetchone()
        if found is not None:
            raise PersonBeingErased
        return
    for row in await db.execute_fetchall(QUERIES["erasures_since"], {"seen": seen}):
        if Erasure.of(row).is_of(org_id, user_id):
            raise PersonBeingErased
