"""The exceptions that a handler may raise, and the errors that clients get for them. Mapped here and nowhere else."""

import errno
import http
import sqlite3
from collections.abc import Callable
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ...access.jwk import KeysUnavailable
from ...access.permissions import AuthorizationUnavailable, PermissionDenied
from ...access.tokens import NotOurs
from ...imaging.errors import ImageError
from ...intake.fetches import FetchesUsedUp, FetchFailed, TooManyFetches
from ...intake.intake import IdempotencyInProgress, Overloaded
from ...intake.limits import BucketNotAllowed
from ...intake.open_uploads import TooManyOpenUploads, TooManyUploads
from ...intake.staging import NoSpace, Rejected, StagingFailed, StagingGone, UnsupportedType, UploadTooLarge
from ...jobs.restart import NotRetryable, StillEnding
from ...jobs.table.byte_quota import QuotaExceeded
from ...jobs.table.credentials import KeyRevoked, TicketExpired, TicketSpent
from ...jobs.table.erasure import PersonBeingErased
from ...jobs.table.patches import NotCompleted
from ...jobs.table.quota import RateLimited
from ...jobs.table.render_tasks import RenderTaskRunning
from ...jobs.table.sql import is_damage
from ...jobs.table.transactions import IdempotencyConflict
from ...jobs.table.writer import DatabaseUnavailable
from ...jobs.webhook_views import NoSuchWebhook
from ...maintenance.runner import TaskRunning
from ...storage.base import NotStored, StorageError, StorageNotConfigured
from .problems import (
    Problem,
    authorization_unavailable,
    being_erased,
    bucket_not_allowed,
    fetch_failed,
    idempotency_conflict,
    image_not_found,
    internal_error,
    not_authenticated,
    not_completed,
    overloaded,
    permission_denied,
    quota_exceeded,
    rate_limited,
    storage_full,
    storage_not_configured,
    unanswered,
    unsupported_type,
    unusable_image,
    upload_too_large,
    webhook_not_found,
)

log = structlog.get_logger()

CODES_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 400: "bad_request", 413: "upload_too_large"}


def _from_intake(error: Rejected) -> Problem:
    if isinstance(error, UploadTooLarge):
        return upload_too_large(error.limit, error.measured)
    if isinstance(error, UnsupportedType):
        return unsupported_type(error)
    if isinstance(error, NoSpace):
        return storage_full(error)
    if isinstance(error, Overloaded):
        return overloaded(str(error), retry_after=30, limit=error.limit, measured=error.waiting)
    if isinstance(error, StagingGone):
        return overloaded("The received part of the upload was lost. Send it again.")
    if isinstance(error, StagingFailed):
        return overloaded("The upload could not be written to disk now. Try again shortly.")
    if isinstance(error, FetchesUsedUp):
        return Problem(429, "rate_limited", str(error), headers={"Retry-After": str(error.retry_after)})
    if isinstance(error, TooManyUploads | TooManyFetches):
        return overloaded(str(error), limit=error.limit, measured=error.open_now)
    if isinstance(error, TooManyOpenUploads):
        more = {"limit": error.limit, "measured": error.open_now}
        return Problem(429, "too_many_open_uploads", str(error), headers={"Retry-After": "5"}, **more)
    if isinstance(error, IdempotencyInProgress):
        detail = "An upload with the same Idempotency-Key is still being received."
        return Problem(409, "idempotency_in_progress", detail, headers={"Retry-After": "1"})
    return Problem(408, "upload_stalled", str(error))


def _from_http(error: HTTPException) -> Problem:
    code = CODES_BY_STATUS.get(error.status_code, http.HTTPStatus(error.status_code).name.lower())
    return Problem(error.status_code, code, error.detail, headers=error.headers)


# The exceptions that a handler may raise, and their errors.
MAPPING: dict[type[Exception], Callable[[Any], Problem]] = {
    Problem: lambda error: error,
    HTTPException: _from_http,
    PermissionDenied: permission_denied,
    BucketNotAllowed: bucket_not_allowed,
    AuthorizationUnavailable: lambda error: authorization_unavailable(error.retry_after),
    KeysUnavailable: lambda error: authorization_unavailable(error.retry_after),
    NotOurs: lambda _: Problem(409, "tokens_not_ours", "An external issuer signs the tokens: none can be made here."),
    Rejected: _from_intake,
    RateLimited: rate_limited,
    QuotaExceeded: quota_exceeded,
    IdempotencyConflict: lambda _: idempotency_conflict(),
    ImageError: unusable_image,
    DatabaseUnavailable: lambda _: overloaded("The request could not be recorded. Try again shortly."),
    sqlite3.OperationalError: lambda _: unanswered(),
    KeyRevoked: lambda _: not_authenticated("token_invalid"),
    TicketSpent: lambda _: not_authenticated("ticket_spent"),
    TicketExpired: lambda _: not_authenticated("ticket_expired"),
    PersonBeingErased: lambda _: being_erased(),
    NotCompleted: lambda error: not_completed(error.status),
    NotRetryable: lambda error: Problem(409, "not_retryable", str(error)),
    StillEnding: lambda error: overloaded(str(error)),
    RenderTaskRunning: lambda _: Problem(
        409, "task_running", "A task is rendering images again already.", headers={"Retry-After": "5"}
    ),
    TaskRunning: lambda error: Problem(409, "task_running", str(error), headers={"Retry-After": "5"}),
    NoSuchWebhook: lambda _: webhook_not_found(),
    FetchFailed: lambda _: fetch_failed(),
    NotStored: lambda _: image_not_found(),
    StorageNotConfigured: lambda _: storage_not_configured(),
    StorageError: lambda _: overloaded("The image could not be read. Try again shortly."),
}


async def as_problem(request: Request, error: Exception) -> Response:
    if isinstance(error, StorageNotConfigured):
        log.error("storage_not_configured", reason=str(error))
    if is_damage(error):
        log.error("database_damaged", reason=str(error))
        return unanswered().response(request)
    for kind, make in MAPPING.items():
        if isinstance(error, kind):
            return make(error).response(request)
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        log.error("out_of_files", reason=str(error.strerror))
        return overloaded("Too many files and connections are open.", retry_after=1).response(request)
    log.error("request_failed", exc_info=error)
    return internal_error().response(request)
