"""Quotas in bytes: what users and organisations have stored, and whether one more upload fits.

The table `usage` is changed by triggers, in the transaction that changes a job's row, so what a transaction reads here
is exact. An upload reserves the length of its file until its job has ended. Its variants may take more, so the
images whose jobs run when a limit is reached can overstep it by as much; nothing is accepted after them.
"""

from collections.abc import Iterable
from typing import Literal, Self

import aiosqlite

from ...lazy_dataclass import dataclass
from ...settings.uploads import ByteQuotas
from .sql import QUERIES

Whose = Literal["user", "org"]


@dataclass(frozen=True, slots=True)
class ByteLimits:
    """The most bytes of a user and of an organisation; 0: no limit."""

    per_user: int = 0
    per_org: int = 0

    @classmethod
    def of(cls, settings: ByteQuotas) -> Self:
        return cls(settings.bytes_per_user, settings.bytes_per_org)


@dataclass(frozen=True, slots=True)
class Used:
    """Completed images, the bytes of their files, and the bytes reserved for uploads whose jobs have not ended."""

    images: int = 0
    bytes: int = 0
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """`counting`: the rows of an older version are being counted, so the figures are too low and nothing is refused."""

    user: Used
    org: Used
    counting: bool

    @classmethod
    def of(cls, rows: Iterable[aiosqlite.Row], counting: aiosqlite.Row) -> Self:
        found = {row["user_id"]: Used(row["images"], row["bytes"], row["reserved"]) for row in rows}
        org = found.pop("", Used())
        return cls(next(iter(found.values()), Used()), org, counting["usage_upto"] is not None)

    def require(self, limits: ByteLimits, needed: int) -> None:
        """Raises QuotaExceeded if `needed` further bytes are too many."""
        if self.counting:
            return
        both: tuple[tuple[Whose, Used, int], ...] = (
            ("user", self.user, limits.per_user),
            ("org", self.org, limits.per_org),
        )
        for whose, used, limit in both:
            if limit and used.bytes + used.reserved + needed > limit:
                raise QuotaExceeded(whose, limit, used.bytes + used.reserved, needed)


@dataclass(frozen=True, slots=True)
class UsageOfUser:
    """A user's completed images, and the bytes of their files."""

    org_id: str
    user_id: str
    images: int
    bytes: int


class QuotaExceeded(Exception):
    """The upload would take more than the user's or the organisation's quota. All in bytes."""

    def __init__(self, whose: Whose, limit: int, used: int, needed: int) -> None:
        owner = "organisation" if whose == "org" else "user"
        super().__init__(
            f"The {owner}'s quota is {limit} bytes, of which {used} are used; the upload needs at least {needed}."
        )
        self.whose, self.limit, self.used, self.needed = whose, limit, used, needed


async def require(db: aiosqlite.Connection, org_id: str, user_id: str, limits: ByteLimits, needed: int) -> None:
    """Part of the transaction that accepts an upload. Raises QuotaExceeded."""
    if not (limits.per_user or limits.per_org):
        return
    rows = await db.execute_fetchall(QUERIES["used"], {"org_id": org_id, "user_id": user_id})
    (counting,) = await db.execute_fetchall(QUERIES["counting"])
    Usage.of(rows, counting).require(limits, needed)
