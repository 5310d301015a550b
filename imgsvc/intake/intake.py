"""From a byte stream to a durable job: the bytes are staged while they are counted and hashed, then a row is inserted.

Once `accept` has returned, the bytes and the row are on disk and the receipt may be sent.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, Self

import anyio
import structlog

from ..imaging.errors import TooLarge
from ..imaging.header import Header
from ..imaging.limits import affordable, preview_bytes, render_bytes, settled
from ..imaging.recipe import Recipe
from ..jobs.denials import Denials
from ..jobs.instance import FirstReceipt
from ..jobs.staging_area import StagingArea
from ..jobs.table.byte_quota import QuotaExceeded
from ..jobs.table.credentials import KeyRevoked, TicketSpent
from ..jobs.table.erasure import PersonBeingErased
from ..jobs.table.job_table import JobTable
from ..jobs.table.model import NewJob
from ..jobs.table.quota import Quota, RateLimited, RateLimitStatus
from ..jobs.table.transactions import Accepted, IdempotencyConflict
from ..jobs.table.writer import DatabaseUnavailable
from ..lazy_dataclass import dataclass
from ..settings.fields import MEGABYTE
from .limits import UploadLimits
from .open_uploads import OpenUpload, OpenUploads
from .rate_limit import RateLimiter
from .staging import CollectedBytes, NoSpace, Rejected, StagedFile

log = structlog.get_logger()


# What the transaction that accepts an upload may refuse it for.
REFUSED = (IdempotencyConflict, RateLimited, QuotaExceeded, KeyRevoked, TicketSpent, PersonBeingErased)


class Overloaded(Rejected):
    """The maximum number of jobs is waiting."""

    def __init__(self, limit: int, waiting: int) -> None:
        super().__init__(f"{waiting} jobs are waiting; at most {limit} may.")
        self.limit, self.waiting = limit, waiting


class IdempotencyInProgress(Rejected):
    """Another upload with the same key is being received."""


@dataclass(frozen=True, slots=True)
class Origin:
    """The uploader, and the metadata of the request."""

    user_id: str
    org_id: str
    bucket: str
    client_metadata: dict[str, Any]
    filename: str
    trace_id: str
    idempotency_key: str | None
    expires_at: str | None = None
    key_id: str | None = None
    ticket_id: str | None = None
    fetched_from: str | None = None  # the host, of an upload by address


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt; with `replayed` that of an earlier upload with the same key."""

    job_id: str
    image_id: str
    standing: RateLimitStatus
    replayed: bool


@dataclass(frozen=True, slots=True)
class IntakePolicy:
    """What holds for every upload: bytes of memory for one preview and one render, the most jobs that may wait, the
    attempts that a job has, the backend of its variants, and whether a job may take over those of the same photo.
    """

    preview_memory: int
    render_memory: int
    max_waiting: int
    max_attempts: int
    storage_backend: str
    reuse: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of memory that processing needs; `preview` is None if the thumbnail is made with the other variants."""

    preview: int | None
    render: int

    @classmethod
    def of(cls, header: Header, recipe: Recipe, policy: IntakePolicy) -> Self:
        """Raises TooLarge if no lane has as much memory."""
        render = render_bytes(header, recipe)
        if render > policy.render_memory:
            raise TooLarge(
                f"Processing the image would need {render / MEGABYTE:.0f} MB of memory; "
                f"at most {policy.render_memory / MEGABYTE:.0f} MB are available for one image."
            )
        preview = preview_bytes(header, recipe)
        return cls(None if preview is not None and preview > policy.preview_memory else preview, render)


class Space(Protocol):
    """Free space in the data folder, as last measured, in bytes."""

    disk_full: bool
    free_bytes: int
    reserve_bytes: int


class Intake:
    """Accepts uploads. `staging_area` is shared with housekeeping, which leaves uploads in progress alone.

    `allowance` contains the service's limits, `decoded` says which of its types are decoded now. Each upload has its
    own limits, which are these or narrower ones.
    """

    def __init__(
        self,
        table: JobTable,
        rate_limiter: RateLimiter,
        denials: Denials,
        *,
        staging_area: StagingArea,
        open_uploads: OpenUploads,
        allowance: UploadLimits,
        policy: IntakePolicy,
        space: Space,
        accepted: Callable[[], None],
        first_receipt: FirstReceipt,
        decoded: Callable[[tuple[str, ...]], tuple[str, ...]],
    ) -> None:
        self._allowance = allowance
        self._decoded = decoded
        self._table = table
        self._rate_limiter = rate_limiter
        self._denials = denials
        self._staging_area = staging_area
        self._collected = CollectedBytes()
        self._open = open_uploads
        self._policy = policy
        self._space = space
        self._accepted = accepted
        self._first_receipt = first_receipt
        self._receiving: set[tuple[str, str, str]] = set()

    @property
    def allowance(self) -> UploadLimits:
        types = self._decoded(self._allowance.types)
        return self._allowance if types == self._allowance.types else replace(self._allowance, types=types)

    @asynccontextmanager
    async def admitted(
        self,
        org_id: str,
        user_id: str,
        key: str | None,
        allowance: UploadLimits,
        announced_bytes: int,
        least_bytes: int = 0,
    ) -> AsyncIterator[OpenUpload]:
        """Check what can be checked before the body is read; reserve the upload's slot and bytes until it ends.

        `announced_bytes` is the largest possible size of the file, `least_bytes` the smallest. An upload whose
        idempotency key was accepted before takes no slot, and is refused only if it could fill the disk together with
        other uploads in progress. Raises RateLimited, TooManyOpenUploads, Overloaded, QuotaExceeded,
        TooManyUploads, NoSpace, IdempotencyInProgress or PersonBeingErased.
        """
        user = (org_id, user_id)
        erasures_seen = self._table.erasures.last
        self._table.erasures.require_none(org_id, user_id)
        known = await self._is_known(org_id, user_id, key)
        if not known:
            known = await self._is_refused(org_id, user_id, key, allowance)
        if not known:
            await self._require_bytes(org_id, user_id, allowance.quota, least_bytes)
        # No await from here until everything is reserved, so that two uploads never count on the same free room.
        if not known:
            self._open.require_place(user)
            self._open.require_any_place()
        self._require_space(announced_bytes, known=known)
        with (
            self._open.held(user, announced_bytes, takes_place=not known) as one,
            self._receiving_first(org_id, user_id, None if known else key),  # an accepted key may be repeated
        ):
            one.erasures_seen = erasures_seen
            yield one

    async def _is_refused(self, org_id: str, user_id: str, key: str | None, allowance: UploadLimits) -> bool:
        """Return True for an upload that has been accepted in the meantime. Raises RateLimited or Overloaded."""
        waiting, standing = await self._rate_limiter.admission(
            org_id, user_id, allowance.quota, self._policy.max_waiting
        )
        on_their_way = self._open.places((org_id, user_id))
        if standing.remaining <= on_their_way:
            if await self._is_known(org_id, user_id, key):  # it took the last slot between the two checks
                return True
            limited = RateLimited(
                replace(standing, used=max(standing.used, min(standing.limit, standing.used + on_their_way))),
                allowance.quota,
            )
            await self._note_limited(org_id, user_id, limited)
            raise limited
        if waiting >= self._policy.max_waiting:
            raise Overloaded(self._policy.max_waiting, waiting)
        return False

    async def _require_bytes(self, org_id: str, user_id: str, quota: Quota, least_bytes: int) -> None:
        """Raises QuotaExceeded. Decided again in the transaction that accepts the upload, by the file's length."""
        if not (quota.byte_limits.per_user or quota.byte_limits.per_org):
            return
        try:
            (await self._table.limits.usage(org_id, user_id)).require(quota.byte_limits, least_bytes)
        except QuotaExceeded as error:
            await self._note_exceeded(org_id, user_id, error)
            raise

    async def _note_exceeded(self, org_id: str, user_id: str, error: QuotaExceeded) -> None:
        limit, used = error.limit, error.used
        await self._denials.record("quota_exceeded", org_id, user_id, whose=error.whose, limit=limit, used=used)

    def _require_space(self, announced_bytes: int, *, known: bool) -> None:
        """Raises NoSpace."""
        space, others = self._space, self._open.announced_bytes
        left = space.free_bytes - others - announced_bytes
        if known and not others:
            return
        if space.disk_full or (space.reserve_bytes and left < space.reserve_bytes):
            raise NoSpace(space.reserve_bytes, max(0, left))

    async def _is_known(self, org_id: str, user_id: str, key: str | None) -> bool:
        """Whether an upload with this key was accepted. Raises IdempotencyInProgress while one is in progress."""
        if key is None:
            return False
        if (org_id, user_id, key) in self._receiving:
            raise IdempotencyInProgress
        return await self._table.has_key(org_id, user_id, key)

    @contextmanager
    def _receiving_first(self, org_id: str, user_id: str, key: str | None) -> Iterator[None]:
        """Reserve the idempotency key while its first upload is in progress. Raises IdempotencyInProgress."""
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
        """Write the event once a window. A limit of 0 has no window: each refusal would begin and end one."""
        end, limit = limited.standing.reset, limited.standing.limit
        await self._denials.record("rate_limited", org_id, user_id, until=end, limit=limit)

    def stage(self, allowance: UploadLimits, announced_bytes: int) -> StagedFile:
        return StagedFile(
            str(uuid.uuid4()),
            self._staging_area,
            self._collected,
            allowance.recipe,
            allowance.types,
            allowance.max_bytes,
            announced_bytes,
        )

    async def accept(self, staged: StagedFile, origin: Origin, allowance: UploadLimits, one: OpenUpload) -> Receipt:
        """Probe, sync and record a complete upload.

        Raises Rejected, ImageError, one of REFUSED, or DatabaseUnavailable.
        """
        header = await staged.finish()
        new = _new_job(staged, origin, header, allowance.recipe, self._policy, one.erasures_seen)
        one.release_place()
        accepted = await self._recorded(staged, new, allowance.quota)
        if accepted.replayed:
            staged.discard()
        else:
            ids = {"job_id": new.job_id, "image_id": new.image_id, "trace_id": new.trace_id}
            write = partial(log.info, "job_accepted", **ids, bytes=new.content_length)
            asyncio.get_running_loop().call_soon(write)  # once the receipt is sent, which waits for nothing
            self._accepted()
        return Receipt(accepted.job.job_id, accepted.job.image_id, accepted.standing, accepted.replayed)

    async def _recorded(self, staged: StagedFile, new: NewJob, quota: Quota) -> Accepted:
        """Insert the row, and commit it once the file is durable. If that is refused, the file is removed.

        Raises Rejected, one of REFUSED, or DatabaseUnavailable.
        """
        try:
            reservation = await self._rate_limiter.reserve(new, quota)
            staged.keep()
            with anyio.CancelScope(shield=True):  # from here on the row may exist, whatever happens to the request
                accepted = await self._rate_limiter.accept(new, quota, reservation, staged.storing)
                await self._first_receipt.record()
            return accepted
        except (DatabaseUnavailable, Rejected, *REFUSED) as error:
            staged.discard()  # the row certainly does not exist
            if isinstance(error, RateLimited):
                await self._note_limited(new.org_id, new.user_id, error)
            if isinstance(error, QuotaExceeded):
                await self._note_exceeded(new.org_id, new.user_id, error)
            raise


def _fitting(header: Header, recipe: Recipe, policy: IntakePolicy) -> Recipe:
    """The recipe for this picture. An animation that no lane has the memory for is shown by its first frame."""
    found = settled(header, recipe)
    return found if render_bytes(header, found) <= policy.render_memory else recipe.stills()


def _new_job(
    staged: StagedFile, origin: Origin, header: Header, recipe: Recipe, policy: IntakePolicy, erasures_seen: int
) -> NewJob:
    """Raises TooLarge."""
    recipe = _fitting(header, recipe, policy)
    estimate = Estimate.of(header, recipe, policy)
    recipe = affordable(header, recipe, estimate.render, policy.render_memory)
    return NewJob(
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
        preview_bytes=estimate.preview,
        render_bytes=estimate.render,
        storage_backend=policy.storage_backend,
        recipe=recipe,
        max_attempts=policy.max_attempts,
        idempotency_key=origin.idempotency_key,
        expires_at=origin.expires_at,
        key_id=origin.key_id,
        ticket_id=origin.ticket_id,
        fetched_from=origin.fetched_from,
        reuse=policy.reuse,
        erasures_seen=erasures_seen,
    )
