"""GET /api/v1/images/{image_id}/source: the source that `[images] keep_source` keeps, for its owner alone."""

from starlette.requests import Request
from starlette.responses import Response

from ...access.permissions import PermissionDenied
from ...access.tokens import Identity
from ...jobs.table.model import Job
from ...storage.base import NotStored, StorageNotConfigured
from ..openapi.operations import BINARY, BYTES, Answer, Content, operation
from ..state import state_of
from ..wire.answer_memory import AnswerMemory, NoRoom, no_room
from ..wire.bearer import authenticated
from ..wire.path_ids import path_id
from ..wire.piecewise import PiecewiseResponse, StoredRange, Unremembered
from ..wire.problems import NO_STORE, image_not_found, image_not_ready, source_not_kept
from .variants import NOT_THERE, OUT_OF_REACH, READY_IN_SECONDS

# Unchanged bytes of a stranger: a browser saves them and runs nothing in them.
INERT = {"Content-Security-Policy": "sandbox; default-src 'none'"}
SOURCE = Content("image/jpeg", BINARY, also=("image/png", "image/webp", BYTES))  # or any other image type


@operation(
    "images_source",
    "images",
    "The source of an image",
    access="bearer",
    answers={200: Answer("The whole source.", SOURCE, ("Content-Disposition", "Content-Security-Policy"))},
    errors=("permission_denied", *NOT_THERE, "source_not_kept", *OUT_OF_REACH),
    head=True,
)
async def source(request: Request) -> Response:
    """What `[images] keep_source` kept when it was uploaded. For the uploader (`image:read` where permissions are
    checked) and, with `image:admin` besides, for the images of the organisation. Never signed, cached or redirected.
    """
    who = await authenticated(request)
    job = await state_of(request).jobs.table.job_of_image(path_id(request, "image_id", image_not_found))
    if job is None or job.org_id != who.org_id or job.status == "failed":
        raise image_not_found()
    await _require(request, who, job)
    if job.status != "completed":
        raise image_not_ready(READY_IN_SECONDS)
    try:
        return await _sent(request, job)
    except NotStored:
        latest = await state_of(request).jobs.table.job(job.job_id)
        if latest is None or latest.storage_backend == job.storage_backend:
            raise
        return await _sent(request, latest)  # it was moved in between


async def _require(request: Request, who: Identity, job: Job) -> None:
    access = state_of(request).access
    try:
        await access.permissions.require_to_read_source(who, own=job.user_id == who.user_id)
    except PermissionDenied as denied:
        await access.denials.record("source_denied", who.org_id, who.user_id, job=job, permission=denied.permission)
        raise


async def _sent(request: Request, job: Job) -> Response:
    kept, stores = job.kept_source, state_of(request).stores
    if kept is None:
        raise source_not_kept()
    storage = stores.storages.get(job.storage_backend)
    if storage is None:
        raise StorageNotConfigured(job.storage_backend)
    headers = {
        **NO_STORE,
        **INERT,
        "Content-Disposition": f'attachment; filename="{kept.key.rpartition("/")[2]}"',
        "Content-Type": kept.media_type,
        "Content-Length": str(kept.size_bytes),
    }
    if request.method == "HEAD":
        return Response(headers=headers)
    stored = StoredRange(Unremembered(storage, stores.variants), kept, 0, kept.size_bytes, _memory(request))
    try:
        await stored.load()
    except NoRoom:
        raise no_room(_memory(request)) from None
    return PiecewiseResponse(stored, 200, headers)


def _memory(request: Request) -> AnswerMemory:
    memory: AnswerMemory = request.app.state.answer_memory
    return memory
