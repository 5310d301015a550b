"""From a byte stream to a durable job: staged while it is counted, digested and sniffed, then one row.

When `accept` has returned, the bytes and the row are on disk: the receipt may be given.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import structlog

from .access.places import Places
from .allowance import Allowance
from .imaging.errors import TooLarge
from .imaging.limits import preview_bytes, render_bytes
from .jobs.changes import IdempotencyConflict
from .jobs.instance import FirstReceipt
from .jobs.model import NewJob
from .jobs.quota import RateLimited, Standing
from .jobs.staging_area import StagingArea
from .jobs.table import Table
from .jobs.writer import DatabaseUnavailable
from .refusals import Refusals
from .staged import NoSpace, Rejected, StagedFile

log = structlog.get_logger()

MEGABYTE = 1 << 20


class Overloaded(Rejected):
    """As many jobs wait as may."""

    def __init__(self, limit: int, waiting: int) -> None:
        super().__init__(f"{waiting} jobs are waiting; at most {limit} may.")
        self.limit, self.waiting = limit, waiting


class IdempotencyInProgress(Rejected):
    """Another upload with the same key is being received."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sends an upload, and what they say of it."""

    user_id: str
    org_id: str
    bucket: str
    client_metadata: dict[str, Any]
    filename: str
    trace_id: str
    idempotency_key: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the client gets; with `replayed` it is the one of an earlier upload with the same key."""

    job_id: str
    image_id: str
    standing: Standing
    replayed: bool


class Space(Protocol):
    """Free space in the data folder, as last measured, in bytes."""

    disk_full: bool
    free_bytes: int
    reserve_bytes: int


class Intake:
    """`staging_area` is shared with housekeeping, which leaves alone what is being received.

    `allowance` is what everybody may; each upload comes with its own, which is that or narrower.
    """

    def __init__(
        self,
        table: Table,
        places: Places,
        refusals: Refusals,
        *,
        staging_area: StagingArea,
        allowance: Allowance,
        preview_memory: int,
        render_memory: int,
        max_attempts: int,
        storage_backend: str,
        max_waiting: int,
        space: Space,
        accepted: Callable[[], None],
        first_receipt: FirstReceipt,
    ) -> None:
        self.allowance = allowance
        self._table = table
        self._places = places
        self._refusals = refusals
        self._staging_area = staging_area
        self._preview_memory = preview_memory
        self._render_memory = render_memory
        self._max_attempts = max_attempts
        self._storage_backend = storage_backend
        self._max_waiting = max_waiting
        self._space = space
        self._accepted = accepted
        self._first_receipt = first_receipt
        self._receiving: set[tuple[str, str, str]] = set()

    async def admit(self, org_id: str, user_id: str, key: str | None, allowance: Allowance) -> bool:
        """What can be refused before any of the body is read; whether an upload with this key was accepted before.

        That one is never refused. Raises RateLimited, Overloaded, NoSpace or IdempotencyInProgress.
        """
        if await self._is_known(org_id, user_id, key):
            return True
        standing = await self._places.standing(org_id, user_id, allowance.quota)
        if not standing.remaining:
            if await self._is_known(org_id, user_id, key):  # it took the last place between the two looks
                return True
            limited = RateLimited(standing, allowance.quota)
            await self._note_limited(org_id, user_id, limited)
            raise limited
        waiting = await self._table.waiting()
        if waiting >= self._max_waiting:
            raise Overloaded(self._max_waiting, waiting)
        if self._space.disk_full:
            raise NoSpace(self._space.reserve_bytes, self._space.free_bytes)
        return False

    async def _is_known(self, org_id: str, user_id: str, key: str | None) -> bool:
        """Whether an upload with this key was accepted. Raises IdempotencyInProgress while one is being received."""
        if key is None:
            return False
        if (org_id, user_id, key) in self._receiving:
            raise IdempotencyInProgress
        return await self._table.has_key(org_id, user_id, key)

    @contextmanager
    def receiving(self, org_id: str, user_id: str, key: str | None) -> Iterator[None]:
        """Hold the idempotency key while its first upload comes in. Raises IdempotencyInProgress."""
        if key is None:
            yield
            return
        held = (org_id, user_id, key)
        if held in self._receiving:
            raise IdempotencyInProgress
        self._receiving.add(held)
        try:
            yield
        finally:
            self._receiving.discard(held)

    async def _note_limited(self, org_id: str, user_id: str, limited: RateLimited) -> None:
        """Once a window. Who may upload nothing has none: each refusal would begin and end a new one."""
        end, limit = limited.standing.reset, limited.standing.limit
        await self._refusals.note("rate_limited", org_id, user_id, until=end, limit=limit)

    def stage(self, allowance: Allowance) -> StagedFile:
        job_id, most = str(uuid.uuid4()), allowance.max_bytes
        return StagedFile(job_id, self._staging_area, allowance.recipe, allowance.types, most)

    async def accept(self, staged: StagedFile, origin: Origin, allowance: Allowance) -> Receipt:
        """Probe, sync and record a complete upload.

        Raises Rejected, ImageError, RateLimited, IdempotencyConflict or DatabaseUnavailable.
        """
        header, recipe = await staged.finish(), allowance.recipe
        render = render_bytes(header, recipe)
        if render > self._render_memory:
            raise TooLarge(
                f"Processing the image would need {render / MEGABYTE:.0f} MB of memory; "
                f"at most {self._render_memory / MEGABYTE:.0f} MB are available for one image."
            )
        preview = preview_bytes(header, recipe)
        if preview is not None and preview > self._preview_memory:
            preview = None  # it gets its thumbnail with the rest
        new = NewJob(
            job_id=staged.job_id,
            image_id=str(uuid.uuid4()),
            user_id=origin.user_id,
            org_id=origin.org_id,
            bucket=origin.bucket,
            staging_path=staged.job_id,
            original_filename=origin.filename,
            client_metadata=origin.client_metadata,
            trace_id=origin.trace_id,
            mime_type=staged.mime,
            content_length=staged.size,
            sha256=staged.sha256,
            pixels=header.pixels,
            preview_bytes=preview,
            render_bytes=render,
            storage_backend=self._storage_backend,
            recipe=recipe,
            max_attempts=self._max_attempts,
            idempotency_key=origin.idempotency_key,
        )
        try:
            place = await self._places.reserve(new, allowance.quota)
            staged.keep()
            with anyio.CancelScope(shield=True):  # handed over: the row may exist whatever happens to the request
                accepted = await self._places.accept(new, allowance.quota, place)
                await self._first_receipt.note()
        except (DatabaseUnavailable, IdempotencyConflict, RateLimited) as error:
            staged.discard()  # a definite no
            if isinstance(error, RateLimited):
                await self._note_limited(new.org_id, new.user_id, error)
            raise
        if accepted.replayed:
            staged.discard()
        else:
            ids = {"job_id": new.job_id, "image_id": new.image_id, "trace_id": new.trace_id}
            log.info("job_accepted", **ids, bytes=new.content_length)
            self._accepted()
        return Receipt(accepted.job.job_id, accepted.job.image_id, accepted.standing, accepted.replayed)
