"""How many bytes the variants in storage take: summed once, and moved by every completion and deletion after that."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiosqlite

from .sql import QUERIES

PAGE = 5_000  # rows in one query: a service that stops waits for one at most, and SQLite sorts little


def bytes_by_variant(measured: Mapping[str, Any]) -> dict[str, int]:
    """Of one job's processing_metadata."""
    return {name: made["size_bytes"] for name, made in measured.get("variants", {}).items()}


async def sum_stored(db: aiosqlite.Connection) -> Counter[str]:
    """{variant: bytes} of all completed images, as `db` sees them (all of one moment, in a snapshot)."""
    found: Counter[str] = Counter()
    last = next(iter(await db.execute_fetchall(QUERIES["last_row"])))[0]
    for after in range(0, last, PAGE):
        for size, taken in await db.execute_fetchall(QUERIES["stored_bytes"], {"after": after, "upto": after + PAGE}):
            found[size] += taken
    return found
