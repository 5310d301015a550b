"""Compares revocations.jsonl with the database at each start, both ways.

After a restore the file knows more than the database: keys are revoked and people erased again. After an update from a
version without the file, or a write that was cut short, the database knows more: the file gets that.
"""

from collections.abc import Awaitable
from contextlib import suppress

import structlog

from .revocations import ErasedPerson, Recorded, Revocations
from .table.credentials import Credentials
from .table.erasure import hash_of
from .table.erasures import ErasureTable
from .table.writer import DatabaseUnavailable

log = structlog.get_logger()


async def reconcile(revocations: Revocations, credentials: Credentials, erasures: ErasureTable, instance: str) -> None:
    """Raises OSError, sqlite3.Error or DatabaseUnavailable."""
    recorded = await revocations.read()
    keys = await _revoke_again(revocations, credentials, recorded)
    people = await _erase_again(revocations, erasures, recorded)
    if keys or people:
        log.warning("revoked_again", keys=keys, people=people, reason="they are in revocations.jsonl")
    if instance not in recorded.epochs:
        await _if_possible(revocations.add_epoch(instance))
    for one in recorded.unknown:
        log.warning(
            "revocations_unknown",
            backup_taken_at=one.taken_at,
            restored_at=one.at,
            reason="revocations.jsonl was missing: keys revoked and people erased in between are not known",
        )
    await erasures.load()


async def _if_possible(adding: Awaitable[None]) -> None:
    """On a full disk the start goes on: the next one adds it."""
    with suppress(DatabaseUnavailable):
        await adding


async def _revoke_again(revocations: Revocations, credentials: Credentials, recorded: Recorded) -> int:
    revoked = await credentials.revoked_digests()
    for digest in revoked - recorded.keys:
        await _if_possible(revocations.add_key(digest))
    return await credentials.revoke_digests(recorded.keys - revoked) if recorded.keys - revoked else 0


async def _erase_again(revocations: Revocations, erasures: ErasureTable, recorded: Recorded) -> int:
    known = {one.erasure_id: one for one in await erasures.all()}
    for erasure in known.values():
        await _if_possible(revocations.add_erasure(erasure))
    wanted = [one for one in recorded.people.values() if one.erasure_id not in known]
    if not wanted:
        return 0
    found: dict[str, tuple[ErasedPerson, str, str]] = {}
    async for org_id, user_id in erasures.people():
        for one in wanted:
            if hash_of(one.salt, org_id, user_id) == one.person:
                found[one.erasure_id] = (one, org_id, user_id)
    for one in wanted:
        if one.erasure_id not in found:
            await erasures.insert_of_nobody(one.erasure_id, one.salt, one.person)
    for one, org_id, user_id in found.values():
        await erasures.insert(one.erasure_id, one.salt, org_id, user_id, repeated=True)
    return len(found)
